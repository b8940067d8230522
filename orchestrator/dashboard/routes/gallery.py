"""Results to look at: pictures with their captions, prompts with their pictures, and one item at a time."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from orchestrator.api.dependencies import AppServices, Audit, DbSession, Id, Reader, Writer, team_session
from orchestrator.api.job_views import view_job
from orchestrator.api.routes import edits as api_edits
from orchestrator.api.routes import replays as api_replays
from orchestrator.dashboard import items, replayed, views
from orchestrator.dashboard.forms import Form, go_to, text_of
from orchestrator.dashboard.pictures import read_part
from orchestrator.dashboard.rendering import render
from orchestrator.db import jobs, overview
from orchestrator.db.tables import JobRow
from orchestrator.domain.failures import FAILURE_CODES
from orchestrator.schemas import EditPut, ReplayCreate

ITEMS_A_PAGE = 24
router = APIRouter()
Index = Annotated[int, Query(ge=-1, le=2**62)]


@router.get("/jobs/{job_id}/gallery")
def show_gallery(request: Request, job_id: Id, caller: Reader, services: AppServices, index: Index = 0) -> Response:
    """From an index on; one beyond the end shows the last items."""
    with team_session(services, caller) as session:
        row = jobs.get_job(session, job_id)
        job = view_job(session, row)
        first = min(max(index, 0), max(row.num_items - 1, 0))
        rows = items.rows_between(session, row, first, first + ITEMS_A_PAGE)
    return render(
        request,
        "gallery.html",
        job=job,
        cards=views.cards_of(rows, caller, services),
        first=first,
        before=max(first - ITEMS_A_PAGE, 0) if first else None,
        after=first + ITEMS_A_PAGE if first + ITEMS_A_PAGE < row.num_items else None,
    )


@router.get("/jobs/{job_id}/failures")
def show_failures(
    request: Request, job_id: Id, caller: Reader, services: AppServices, code: str = "", after_index: Index = -1
) -> Response:
    """Items without a result, of one code or of all."""
    with team_session(services, caller) as session:
        row = jobs.get_job(session, job_id)
        job = view_job(session, row)
        code = code if code in FAILURE_CODES else ""
        if code:
            found = overview.list_by_code(session, row.id, code, after_index=after_index, limit=ITEMS_A_PAGE + 1)
        else:
            found = jobs.list_failures(session, row.id, after_index=after_index, limit=ITEMS_A_PAGE + 1)
        shown = found[:ITEMS_A_PAGE]
        rows = items.rows_of(session, row, [failure.index for failure in shown])
        groups = overview.failure_groups(session, row.id, examples=0)
    return render(
        request,
        "failures.html",
        job=job,
        cards=zip(shown, views.cards_of(rows, caller, services), strict=True),
        groups=groups,
        max_counted=overview.MAX_COUNTED,
        code=code,
        meaning=FAILURE_CODES.get(code, ""),
        is_first=after_index < 0,
        after=shown[-1].index if len(found) > len(shown) else None,
    )


@router.get("/jobs/{job_id}/items")
def jump_to_item(job_id: Id, caller: Reader, index: Annotated[int, Query(ge=0, le=2**62)]) -> Response:
    """Where the form with an index leads."""
    return go_to(f"/jobs/{job_id}/items/{index}")


@router.get("/jobs/{job_id}/items/{index}")
def show_item(
    request: Request,
    job_id: Id,
    index: Annotated[int, Path(ge=0, le=2**62)],
    caller: Reader,
    services: AppServices,
    saved: bool = False,
) -> Response:
    with team_session(services, caller) as session:
        row = jobs.get_job(session, job_id)
        job = view_job(session, row)
        rows = items.rows_between(session, row, index, index + 1)
    if not rows.indexes:
        return render(request, "no_item.html", 404, job=job, index=index)
    [card] = views.cards_of(rows, caller, services)
    return render(
        request,
        "item.html",
        once=secrets.token_hex(8),
        replayed=replayed.look(row, card.seen, caller, services),
        job=job,
        card=card,
        seen=card.seen,
        facts=_facts(row, card.seen),
        meaning=FAILURE_CODES.get((card.seen.failure or {}).get("code", ""), ""),
        saved=saved,
    )


def _facts(row: JobRow, seen: items.Seen) -> dict[str, object]:
    """How the item was asked, and by what it was answered."""
    line, item = seen.line or {}, seen.item
    options = row.options | ((item.options if item else None) or {})
    prompt = options.pop("prompt", None)
    asked = {"prompt": (item.prompt if item else None) or line.get("prompt") or prompt}
    answered = {
        name: line[name] for name in ("seed", "num_tokens", "finish_reason", "model", "revision") if name in line
    }
    if "seed" not in answered:
        options["seed"] = item.seed if item and item.seed is not None else options.get("seed")
    else:
        options.pop("seed", None)
    tries = {"attempt": (seen.failure or {}).get("attempts", seen.attempt)} if seen.attempt else {}
    return asked | answered | tries | {name: value for name, value in options.items() if value is not None}


@router.post("/jobs/{job_id}/items/{index}")
def edit_item(
    job_id: Id,
    index: Annotated[int, Path(ge=0, le=2**62)],
    session: DbSession,
    caller: Writer,
    audit: Audit,
    form: Form,
) -> Response:
    """Save, approve or take back; what equals the model's caption is no edit of it."""
    caption, original, action = text_of(form, "caption"), text_of(form, "original"), text_of(form, "action")
    edited = None if action == "undo" or not caption or _same(caption, original) else caption
    body = EditPut(caption=edited, approved=action == "approve")
    api_edits.put_edit(job_id, index, body, session, caller, audit)
    return go_to(f"/jobs/{job_id}/items/{index}?saved=true")


@router.post("/jobs/{job_id}/items/{index}/replay")
def replay_item(
    job_id: Id,
    index: Annotated[int, Path(ge=0, le=2**62)],
    session: DbSession,
    caller: Writer,
    services: AppServices,
    audit: Audit,
    form: Form,
) -> Response:
    """A form that is sent twice makes one job."""
    once = text_of(form, "once")
    key = f"form-{once}" if once else None
    body = ReplayCreate(index=index)
    made = api_replays.replay_item(job_id, body, session, caller, services, Response(), audit, idempotency_key=key)
    return go_to(f"/jobs/{made.id}?note=replayed")


def _same(one: str, other: str) -> bool:
    """A browser's form ends lines with CR LF."""
    return one.replace("\r\n", "\n") == other.replace("\r\n", "\n")


@router.get("/pictures/{token}")
def show_picture(token: str, caller: Reader, services: AppServices) -> Response:
    """A picture that is a part of a larger object, to whom a page of it was shown."""
    data, media_type = read_part(token, caller.team_id, services)
    headers = {
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=3600, immutable",
        "Content-Disposition": "inline",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(data, media_type=media_type, headers=headers)
