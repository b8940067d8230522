"""Numbers, times and words as pages show them. Times are in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from orchestrator.domain.sizes import format_size

__all__ = [
    "ago",
    "clock",
    "commands",
    "count",
    "duration",
    "minute",
    "option",
    "plural",
    "rate",
    "share",
    "short_sha",
    "size",
    "state_word",
    "whole",
]

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def share(part: int, total: int) -> float:
    """In percent, for widths; of nothing it is 0."""
    return round(100 * part / total, 3) if total else 0.0


def whole(part: int, total: int) -> str:
    """In percent as it is read: never 100 before all is there, nor 0 where something is."""
    if not total or not part:
        return "0%"
    if part == total:
        return "100%"
    percent = min(max(100 * part / total, 0.1), 99.9)
    return f"{percent:.1f}%" if percent < 1 or percent > 99 else f"{percent:.0f}%"


def rate(items_per_second: float | None) -> str:
    """Items a second, or a minute or an hour where that is easier to read."""
    if not items_per_second:
        return "–"
    for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
        value = items_per_second * seconds
        if value >= 1:
            return f"{value:,.0f}/{unit}" if value >= 10 else f"{value:.1f}/{unit}"
    return f"{items_per_second * 3600:.2f}/h"


def duration(seconds: float | None) -> str:
    """Two units at most: 3 d 4 h, 12 min, 8 s."""
    if seconds is None:
        return "–"
    left, parts = max(round(seconds), 0), list[str]()
    for size, unit in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def clock(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else "–"


def minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def ago(moment: datetime | None, now: datetime) -> str:
    """In one unit: 5 min ago; what lies ahead is `in 5 min`."""
    if moment is None:
        return "never"
    seconds = (now - moment).total_seconds()
    size, unit = next(((s, u) for s, u in _UNITS if abs(seconds) >= s), (1, "s"))
    text = f"{round(abs(seconds) // size)} {unit}"
    if abs(seconds) < 1:
        return "now"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def size(num_bytes: int) -> str:
    return format_size(num_bytes)


def option(value: Any) -> str:
    """What an option is set to, in words where that is nothing."""
    if value is None:
        return "the model's own"
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return "none" if value == "" else str(value)


def commands(text: str) -> Markup:
    """A sentence with what stands in backticks as code; the rest is escaped."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def short_sha(text: str) -> str:
    """A digest or revision, short enough for a table."""
    name, _, digest = text.rpartition(":")
    return f"{name}:{digest[:12]}" if name else digest[:12]


def state_word(job: Any) -> str:
    """How a job stands, in one word: paused and cancelling are no states, and what people want to know."""
    if not job.state.ended and job.cancel_requested_at is not None:
        return "cancelling"
    if not job.state.ended and job.paused_at is not None:
        return "paused"
    return str(job.state)
