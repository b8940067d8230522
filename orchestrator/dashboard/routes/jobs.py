"""The list of jobs, a job's page, and what may be done with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.api.dependencies import (
    AnyCaller,
    AppServices,
    Audit,
    DbSession,
    Id,
    Reader,
    Services,
    Writer,
    team_session,
)
from orchestrator.api.job_views import decode_cursor
from orchestrator.api.quota_views import view_quota
from orchestrator.api.routes import jobs as api_jobs
from orchestrator.api.routes import samples as api_samples
from orchestrator.artifacts.base import StoreError
from orchestrator.dashboard import live, views
from orchestrator.dashboard.forms import Form, go_to, text_of
from orchestrator.dashboard.items import Rows
from orchestrator.dashboard.rendering import render, render_piece
from orchestrator.dashboard.views import Card, Overview
from orchestrator.db import jobs, teams
from orchestrator.db.session import SessionFactory
from orchestrator.db.teams import Caller
from orchestrator.domain.jobs import JobKind, JobState
from orchestrator.schemas import ApproveCreate

router = APIRouter()
LIST_SECONDS, JOB_SECONDS = 2.0, 1.0
NOTES = {
    "paused": "Paused. Workers give back what they hold within seconds.",
    "resumed": "Resumed.",
    "cancelled": "Cancelling. What is finished stays.",
    "submitted": "Submitted.",
    "retried": "This new job has the failed items of the one before.",
    "approved": "Approved. Where this job asks what the sample asked, it takes what the sample has.",
    "again": "The same items, asked with the new prompt.",
    "unchanged": "The prompt is what it was. Change it to ask the same items again, or approve the sample.",
    "rejected": "Rejected. What the sample made stays until it is deleted.",
    "replayed": "This job makes one item again. Its item's page compares.",
}
State = JobState | None
Cursor = Annotated[str, Query(max_length=500)]


@router.get("/")
def list_jobs(
    request: Request, session: DbSession, caller: AnyCaller, state: State = None, cursor: Cursor = ""
) -> Response:
    if "jobs:read" not in caller.scopes:
        return RedirectResponse("/teams" if "admin" in caller.scopes else "/workers", 303)
    before = decode_cursor(cursor) if cursor else None
    found = views.list_page(session, caller.team_id, state=state, before=before)
    quota = view_quota(session, teams.get_team(session, caller.team_id))
    return render(request, "jobs.html", found=found, state=state, cursor=cursor, quota=quota)


@router.get("/jobs")
def find_jobs(caller: AnyCaller) -> Response:
    """Where somebody looks who cuts a job's address short."""
    return go_to("/")


@router.get("/live/jobs")
def follow_jobs(caller: Reader, services: AppServices, state: State = None, cursor: Cursor = "") -> Response:
    before = decode_cursor(cursor) if cursor else None

    def look() -> live.Pieces:
        with team_session(services, caller) as session:
            require_live(services.sessions, caller)
            found = views.list_page(session, caller.team_id, state=state, before=before)
        return {"jobs": render_piece("pieces/job_list.html", found=found, state=state, cursor=cursor)}

    return live.follow(caller.key_id, look, every_seconds=LIST_SECONDS)


@router.get("/jobs/{job_id}")
def show_job(request: Request, job_id: Id, caller: Reader, services: AppServices, note: str = "") -> Response:
    with team_session(services, caller) as session:
        row = jobs.get_job(session, job_id)
        seen, rows = views.overview_of(session, row), views.sheet_rows(session, row)
    try:
        cards: list[Card] | None = views.cards_of(rows, caller, services)
    except StoreError:
        cards = None
    return render(
        request,
        "job.html",
        view=seen,
        cards=cards,
        links=views.download_links(row, services),
        actions=views.actions_of(seen.job, caller.scopes),
        note=NOTES.get(note, ""),
    )


@router.get("/live/jobs/{job_id}")
def follow_job(job_id: Id, request: Request, caller: Reader, services: AppServices) -> Response:
    form_token = request.state.session.form_token

    sheet = _Sheet(caller, services)

    def look() -> live.Pieces:
        with team_session(services, caller) as session:
            require_live(services.sessions, caller)
            row = jobs.get_job(session, job_id)
            if JobState(row.state).ended:
                raise live.Gone  # its page is another one: with links, and nothing to follow
            seen, rows = views.overview_of(session, row), views.sheet_rows(session, row)
        return _pieces(seen, caller, form_token) | sheet.look(seen, rows)

    return live.follow(caller.key_id, look, every_seconds=JOB_SECONDS)


def _pieces(seen: Overview, caller: Caller, form_token: str) -> live.Pieces:
    actions = views.actions_of(seen.job, caller.scopes)
    context = {"view": seen, "actions": actions, "form_token": form_token, "links": {}}
    names = ("state", "actions", "progress", "chart", "failures", "events")
    return {f"job-{name}": render_piece(f"pieces/job_{name}.html", **context) for name in names}


class _Sheet:
    """The first results, read from the store again only where one more of them is finished."""

    def __init__(self, caller: Caller, services: Services) -> None:
        self._caller, self._services = caller, services
        self._finished: frozenset[int] | None = None
        self._html = ""

    def look(self, seen: Overview, rows: Rows) -> live.Pieces:
        finished = rows.finished()
        if finished != self._finished:
            try:
                cards = views.cards_of(rows, self._caller, self._services)
            except StoreError:
                return {}
            self._html, self._finished = render_piece("pieces/job_sheet.html", view=seen, cards=cards), finished
        return {"job-sheet": self._html}


def require_live(sessions: SessionFactory, caller: Caller) -> None:
    """Raise Gone where the caller's key was revoked since the stream began."""
    with sessions() as session:
        if teams.find_live_key(session, caller.key_id) is None:
            raise live.Gone


@router.post("/jobs/{job_id}/pause")
def pause_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit, form: Form) -> Response:
    api_jobs.pause_job(job_id, session, caller, audit)
    return go_to(f"/jobs/{job_id}?note=paused")


@router.post("/jobs/{job_id}/resume")
def resume_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit, form: Form) -> Response:
    api_jobs.resume_job(job_id, session, caller, audit)
    return go_to(f"/jobs/{job_id}?note=resumed")


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: Id, session: DbSession, caller: Writer, audit: Audit, form: Form) -> Response:
    api_jobs.cancel_job(job_id, session, caller, audit)
    return go_to(f"/jobs/{job_id}?note=cancelled")


@router.post("/jobs/{job_id}/retry")
def retry_job(
    job_id: Id, session: DbSession, caller: Writer, services: AppServices, audit: Audit, form: Form
) -> Response:
    """A form that is sent twice makes one job."""
    once = text_of(form, "once")
    key = f"form-{once}" if once else None
    made = api_jobs.retry_job(job_id, session, caller, services, Response(), audit, idempotency_key=key)
    return go_to(f"/jobs/{made.id}?note=retried")


@router.post("/jobs/{job_id}/approve")
def approve_sample(
    job_id: Id, session: DbSession, caller: Writer, services: AppServices, audit: Audit, form: Form
) -> Response:
    """The whole input as the sample asked, or with another prompt; or the same items first with that one."""
    job, prompt = jobs.get_job(session, job_id), text_of(form, "prompt").replace("\r\n", "\n")
    is_edited = job.kind == JobKind.caption and prompt not in ("", job.options["prompt"])
    again = text_of(form, "action") == "again"
    if again and not is_edited:
        return go_to(f"/jobs/{job_id}?note=unchanged")
    body = ApproveCreate(options={"prompt": prompt} if is_edited else None, sample=job.sample if again else None)
    made = api_samples.approve_sample(job_id, session, caller, services, Response(), audit, body)
    return go_to(f"/jobs/{made.id}?note={'again' if again else 'approved'}")


@router.post("/jobs/{job_id}/reject")
def reject_sample(job_id: Id, session: DbSession, caller: Writer, audit: Audit, form: Form) -> Response:
    api_samples.reject_sample(job_id, session, caller, audit)
    return go_to(f"/jobs/{job_id}?note=rejected")
