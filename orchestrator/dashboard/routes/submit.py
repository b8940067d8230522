"""Making a job in the browser: pictures to caption, or prompts to draw."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, Services, Writer
from orchestrator.api.routes import jobs as api_jobs
from orchestrator.api.routes import uploads as api_uploads
from orchestrator.dashboard.forms import MAX_FILES, Form, files_of, go_to, number_of, text_of
from orchestrator.dashboard.rendering import render
from orchestrator.dashboard.uploads import names_of
from orchestrator.db import workers
from orchestrator.db.uploads import upload_prefix
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import MAX_PREFIX_LENGTH, CaptionOptions, GenerateOptions, JobKind
from orchestrator.domain.names import IMAGE_SUFFIXES
from orchestrator.domain.windows import MAX_LENGTH
from orchestrator.schemas import JobCreate, UploadUrlsCreate, finding_message

router = APIRouter(prefix="/new")
PREVIEWED = 20
Kind = JobKind
OPTIONS = {  # fields of the form that are numbers, by the option that they are
    JobKind.caption: {
        "max_tokens": "whole", "temperature": "number", "top_p": "number", "top_k": "whole", "seed": "whole",
    },
    JobKind.generate: {
        "images": "whole", "guidance": "number", "temperature": "number", "steps": "whole", "top_p": "number",
        "top_k": "whole", "seed": "whole",
    },
}  # fmt: skip
DEFAULTS = {JobKind.caption: asdict(CaptionOptions()), JobKind.generate: asdict(GenerateOptions())}
_READ = TypeAdapter[Any](JobCreate)


@router.get("")
def show_form(
    request: Request, session: DbSession, caller: Writer, services: AppServices, kind: Kind = JobKind.caption
) -> Response:
    return _form(request, session, services, kind, FormData())


@router.post("/preview")
def preview(request: Request, session: DbSession, caller: Writer, services: AppServices, form: Form) -> Response:
    """What the prompts will be, before anything is made; for browsers without scripts, which show it as one types."""
    return _form(request, session, services, JobKind.generate, form, is_previewed=True)


@router.post("/{kind}")
def submit(
    kind: Kind, request: Request, session: DbSession, caller: Writer, services: AppServices, audit: Audit, form: Form
) -> Response:
    """A form that is sent twice makes one job."""
    try:
        source = _prompts(form) if kind is JobKind.generate else _pictures(form, session, caller, services, audit)
        body = _READ.validate_python(_body(kind, form) | {"input": source})
        once = text_of(form, "once")
        key = f"form-{once}" if once else None
        made = api_jobs.create_job(body, session, caller, services, Response(), audit, key)
    except InvalidRequest as error:
        return _form(request, session, services, kind, form, why=error.message)
    except ValidationError as error:
        why = "; ".join(finding_message(finding) for finding in error.errors()[:3])
        return _form(request, session, services, kind, form, why=why)
    return go_to(f"/jobs/{made.id}?note=submitted")


def _body(kind: JobKind, form: FormData) -> dict[str, Any]:
    options: dict[str, Any] = {name: number_of(form, name, number) for name, number in OPTIONS[kind].items()}
    if kind is JobKind.caption:
        options["prompt"] = text_of(form, "prompt") or None
        options["prefix"] = text_of(form, "prefix") or None
        options["avoid"] = lines_of(text_of(form, "avoid")) or None
    elif text_of(form, "solver"):
        options["solver"] = text_of(form, "solver")
    priority = number_of(form, "priority", "whole")
    return {
        "kind": str(kind),
        "name": text_of(form, "name") or "untitled",
        "model": text_of(form, "model"),
        "priority": priority or 0,
        "window": text_of(form, "window") or None,
        "deadline_at": _deadline(form),
        "options": {name: value for name, value in options.items() if value is not None},
    }


def _deadline(form: FormData) -> datetime | None:
    """What a browser's field for a date and a time sends: no zone, so the page says which."""
    text = text_of(form, "deadline")
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest(f"deadline is {text[:40]!r}; it must be a time such as 2027-01-31T07:00") from None


def _prompts(form: FormData) -> dict[str, Any]:
    prompts = lines_of(text_of(form, "prompts"))
    if not prompts:
        raise InvalidRequest("There is no prompt. Write one on each line.")
    return {"items": [{"prompt": prompt} for prompt in prompts]}


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _pictures(form: FormData, session: Session, caller: Writer, services: Services, audit: Audit) -> dict[str, Any]:
    """The upload that a script filled, or one that is filled here with the form's files."""
    if upload := text_of(form, "upload"):
        return {"upload": upload}
    files = files_of(form, "pictures")
    if not files:
        raise InvalidRequest("There is no picture. Choose some files.")
    names = names_of(file.filename or "" for file in files)
    made = api_uploads.create_upload(session, caller, Response(), audit)
    for name, file in zip(names, files, strict=True):
        services.store.put(upload_prefix(caller.team_id, made.id) + name, file.file.read())
    return {"upload": made.id}


@router.post("/uploads/start")
def start_upload(session: DbSession, caller: Writer, audit: Audit, form: Form) -> Response:
    """For the page's script: an upload to fill."""
    return JSONResponse({"upload": api_uploads.create_upload(session, caller, Response(), audit).id})


@router.post("/uploads/{upload_id}/links")
def make_links(
    upload_id: Id, session: DbSession, caller: Writer, services: AppServices, audit: Audit, form: Form
) -> Response:
    """For the page's script: where to send each file, under names that differ from those it took before."""
    files = [str(name) for name in form.getlist("file")][:MAX_FILES]
    names = names_of(files, taken=[str(name) for name in form.getlist("taken")])
    made = api_uploads.create_urls(upload_id, UploadUrlsCreate(names=names), session, caller, services, audit)
    return JSONResponse({"names": names, "urls": made.urls})


def _form(
    request: Request,
    session: Session,
    services: Services,
    kind: JobKind,
    form: FormData,
    *,
    why: str = "",
    is_previewed: bool = False,
) -> Response:
    served = workers.models_served(session)
    prompts = lines_of(text_of(form, "prompts"))
    return render(
        request,
        "new.html",
        422 if why else 200,
        kind=kind,
        form=form,
        why=why,
        models=sorted(workers.list_models(session), key=lambda model: (model.name not in served, model.name)),
        served=served,
        defaults=DEFAULTS[kind],
        suffixes=",".join(IMAGE_SUFFIXES),
        max_prefix=MAX_PREFIX_LENGTH,
        max_window=MAX_LENGTH,
        max_form_bytes=services.settings.max_request_bytes,
        max_prompts=services.settings.max_inline_items,
        once=text_of(form, "once") or secrets.token_urlsafe(16),
        prompts=prompts,
        previewed=prompts[:PREVIEWED] if is_previewed or why else [],
    )
