"""An OpenAI batch: what that contract asks of us, as our kinds and states."""

from __future__ import annotations

import enum
import re

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import JobKind, JobState

ENDPOINTS = {"/v1/chat/completions": JobKind.caption, "/v1/images/generations": JobKind.generate}
MAX_ERRORS = 100  # of a batch that failed, beside its id; its error file has all of them
MAX_WINDOW_SECONDS = 30 * 86_400
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class OpenaiState(enum.StrEnum):
    """validating -> in_progress -> finalizing -> completed | expired | cancelled | failed; cancelling on the way."""

    validating = "validating"
    failed = "failed"
    in_progress = "in_progress"
    finalizing = "finalizing"
    completed = "completed"
    expired = "expired"
    cancelling = "cancelling"
    cancelled = "cancelled"


OPEN = frozenset({OpenaiState.validating, OpenaiState.in_progress, OpenaiState.cancelling, OpenaiState.finalizing})


def window_seconds(text: str) -> int:
    """How long a completion window such as `24h` or `90m` is. Raises InvalidRequest."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    seconds = int(found[1]) * _UNIT_SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_SECONDS:
        raise InvalidRequest(
            f"completion_window is {text[:20]!r}; write a number and s, m, h or d, such as '24h', up to 30 days"
        )
    return seconds


def state_after(job: JobState | None, *, cancel_asked: bool) -> OpenaiState:
    """How a batch ends whose job has ended so; None is a job that was deleted meanwhile."""
    if job is None or job is JobState.failed:
        return OpenaiState.failed
    if cancel_asked:
        return OpenaiState.cancelled
    if job is JobState.expired:
        return OpenaiState.expired
    return OpenaiState.cancelled if job is JobState.cancelled else OpenaiState.completed
