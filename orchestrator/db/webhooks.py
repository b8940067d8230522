"""Webhooks, and the outbox of what they are to hear: written with the job's end, claimed before each try."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from orchestrator.db.tables import DeliveryRow, FailureRow, JobRow, WebhookRow
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.ids import new_id
from orchestrator.domain.jobs import Counts, JobState
from orchestrator.domain.nights import last_night, night_of, night_over
from orchestrator.domain.webhooks import MAX_WEBHOOKS, job_ended, new_secret, pause_after
from orchestrator.domain.windows import Opening

_NOW = func.clock_timestamp()


def create_webhook(session: Session, team_id: str, url: str) -> WebhookRow:
    """Raises Conflict where the team has as many as it may."""
    if len(list_webhooks(session)) >= MAX_WEBHOOKS:
        raise Conflict(f"the team has {MAX_WEBHOOKS} webhooks; delete one first")
    webhook = WebhookRow(id=new_id("hook"), team_id=team_id, url=url, secret=new_secret())
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return webhook


def list_webhooks(session: Session) -> Sequence[WebhookRow]:
    return session.scalars(select(WebhookRow).order_by(WebhookRow.created_at, WebhookRow.id)).all()


def delete_webhook(session: Session, webhook_id: str) -> None:
    """What it was still to hear goes with it. Raises NotFound, in a confined session for another team's too."""
    gone = delete(WebhookRow).where(WebhookRow.id == webhook_id).returning(WebhookRow.id)
    if session.execute(gone.execution_options(synchronize_session=False)).first() is None:
        raise NotFound(f"there is no webhook {webhook_id!r}")


def record_job_end(session: Session, job_id: str) -> None:
    """In the transaction that ends a job: a message to each webhook of its team, and to its own."""
    job = session.scalars(select(JobRow).where(JobRow.id == job_id).execution_options(populate_existing=True)).one()
    if targets := _targets(session, job):
        _add(session, job, targets, _message(session, job))
    if job.run_window is not None and job.started_at is not None and job.finished_at is not None:
        night = last_night(job.run_window, job.finished_at, started_at=job.started_at, told_at=job.reported_at)
        if night is not None:
            record_night(session, job, night, counts_of_ended(job), until=job.finished_at)


def record_night(session: Session, job: JobRow, opening: Opening, counts: Counts, *, until: datetime) -> None:
    """In the transaction that marks a night as told: its report, to each webhook of the job's team, and to its own."""
    if targets := _targets(session, job):
        _add(session, job, targets, _report(session, job, opening, counts, until))


def counts_of_ended(job: JobRow) -> Counts:
    return Counts(job.num_items, job.num_results, job.num_failures, job.num_cancelled, job.num_reused)


def _targets(session: Session, job: JobRow) -> list[tuple[str | None, str, str]]:
    """(webhook's id, URL, secret) of all who hear of a job."""
    targets: list[tuple[str | None, str, str]] = [
        (webhook.id, webhook.url, webhook.secret)
        for webhook in session.scalars(select(WebhookRow).where(WebhookRow.team_id == job.team_id))
    ]
    if job.webhook is not None:
        targets.append((None, job.webhook["url"], job.webhook["secret"]))
    return targets


def _add(session: Session, job: JobRow, targets: list[tuple[str | None, str, str]], body: str) -> None:
    session.add_all(
        DeliveryRow(
            id=new_id("msg"),
            team_id=job.team_id,
            job_id=job.id,
            webhook_id=webhook_id,
            url=url,
            secret=secret,
            body=body,
        )
        for webhook_id, url, secret in targets
    )
    session.flush()


def _report(session: Session, job: JobRow, opening: Opening, counts: Counts, until: datetime) -> str:
    number, window = func.count(), job.run_window or ""
    by_code = select(FailureRow.code, number).where(FailureRow.job_id == job.id).group_by(FailureRow.code)
    return night_over(
        job_id=job.id,
        name=job.name,
        kind=job.kind,
        model=job.model,
        state=JobState(job.state),
        is_paused=job.paused_at is not None,
        window=window,
        night=night_of(
            window,
            opening,
            started_at=job.started_at or until,
            until=until,
            num_finished=counts.finished - job.reported_items,
        ),
        counts=counts,
        failures=dict(session.execute(by_code.order_by(number.desc(), FailureRow.code)).all()),
        deadline_at=job.deadline_at,
        at=datetime.now(UTC),
    )


def _message(session: Session, job: JobRow) -> str:
    by_code = select(FailureRow.code, func.count()).where(FailureRow.job_id == job.id).group_by(FailureRow.code)
    return job_ended(
        job_id=job.id,
        name=job.name,
        kind=job.kind,
        model=job.model,
        state=JobState(job.state),
        reason=job.state_reason,
        counts=counts_of_ended(job),
        failures=dict(session.execute(by_code.order_by(FailureRow.code)).all()),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at or job.created_at,
    )


def claim(session: Session, now: datetime, *, limit: int) -> Sequence[DeliveryRow]:
    """Messages whose next try is due, counted as tried: who dies now has it tried again after the pause.

    Teams take turns; those that another process is at are left out.
    """
    due = (DeliveryRow.ended_at.is_(None)) & (DeliveryRow.next_at <= now)
    turn = func.row_number().over(partition_by=DeliveryRow.team_id, order_by=DeliveryRow.next_at)
    ranked = select(DeliveryRow.id, turn.label("turn")).where(due).subquery()
    some = select(ranked.c.id).order_by(ranked.c.turn).limit(limit)
    locked = select(DeliveryRow).where(DeliveryRow.id.in_(some), due).with_for_update(skip_locked=True)
    claimed = session.scalars(locked).all()
    for delivery in claimed:
        delivery.tries += 1
        delivery.next_at = now + pause_after(delivery.tries)
    session.flush()
    return claimed


def note_delivered(session: Session, delivery: DeliveryRow) -> None:
    _note(session, delivery, trouble=None, is_over=True)


def note_trouble(session: Session, delivery: DeliveryRow, trouble: str, *, is_over: bool) -> None:
    """What was wrong with a try; is_over: it was the last one."""
    _note(session, delivery, trouble=trouble, is_over=is_over)


def _note(session: Session, delivery: DeliveryRow, *, trouble: str | None, is_over: bool) -> None:
    ended_at = {"ended_at": _NOW} if is_over else {}
    session.execute(update(DeliveryRow).where(DeliveryRow.id == delivery.id).values(trouble=trouble, **ended_at))
    if delivery.webhook_id is not None:
        seen = {"delivered_at": _NOW} if trouble is None else {"failed_at": _NOW, "trouble": trouble}
        session.execute(update(WebhookRow).where(WebhookRow.id == delivery.webhook_id).values(**seen))


def forget_ended(session: Session, now: datetime, *, older_than: timedelta, limit: int) -> None:
    """Forget messages that were delivered or given up so long ago."""
    some = select(DeliveryRow.id).where(DeliveryRow.ended_at < now - older_than).limit(limit)
    session.execute(delete(DeliveryRow).where(DeliveryRow.id.in_(some)).execution_options(synchronize_session=False))
