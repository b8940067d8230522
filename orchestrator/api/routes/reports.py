"""The report: what was done since a time, what failed, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BeforeValidator

from orchestrator.api.dependencies import DbSession, Reader
from orchestrator.api.job_views import view_jobs
from orchestrator.db import reports
from orchestrator.db.session import database_now
from orchestrator.schemas import FailureExample, FailureGroup, JobItems, ReportView

router = APIRouter(prefix="/v1/report", tags=["jobs"])
MAX_JOBS = 100


def _no_number(value: str) -> str:
    """Seconds since 1970 would be taken for a time too, and nobody means that."""
    if value.replace(".", "").lstrip("+-").isdecimal():
        raise ValueError("give a time such as 2027-01-31T12:00:00Z")
    return value


Since = Annotated[AwareDatetime, BeforeValidator(_no_number), Query()]


@router.get("")
def get_report(session: DbSession, caller: Reader, since: Since) -> ReportView:
    """The team's jobs that ran at some time since then."""
    states, counts = reports.count_states(session, since), reports.count_items(session, since)
    return ReportView(
        since=since,
        until=database_now(session),
        num_jobs=sum(states.values()),
        states=states,
        items=JobItems(
            total=counts.total, results=counts.results, failures=counts.failures, cancelled=counts.cancelled
        ),
        failures=[
            FailureGroup(
                code=first.code,
                count=count,
                example=FailureExample(job=first.job_id, index=first.index, id=first.item_id, message=first.message),
            )
            for count, first in reports.group_failures(session, since)
        ],
        jobs=view_jobs(session, reports.newest_jobs(session, since, limit=MAX_JOBS)),
    )
