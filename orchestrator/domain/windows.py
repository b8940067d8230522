"""Run windows: at which hours of which days a job may run, by the clock of a place.

A window opens on its days at its first time and closes at its second, on the next day where that is not later. Its days
are those on which it opens: `Fri 22:00-06:00` closes on Saturday morning. Where the clocks go forward over one of its
times, that moment is meant; where they go back and a time comes twice, it opens at the first and closes at the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from orchestrator.domain.errors import InvalidRequest

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY = frozenset(range(7))
MAX_LENGTH = 120  # characters
_FORM = re.compile(r"(?:(?P<days>\S+) )?(?P<opens>\d\d:\d\d)-(?P<closes>\d\d:\d\d) (?P<zone>[A-Za-z0-9_+/-]+)")
_HELP = "write it as '22:00-06:00 Europe/Berlin' or 'Mon-Fri 22:00-06:00 Europe/Berlin'"


@dataclass(frozen=True)
class Opening:
    """One time that a window is open: opens_at <= t < closes_at, in UTC."""

    opens_at: datetime
    closes_at: datetime

    def holds(self, now: datetime) -> bool:
        return self.opens_at <= now < self.closes_at


@dataclass(frozen=True)
class Window:
    """days: 0 is Monday. minutes: of the day; `closes_minute` may be 1440, and is of the next day if not later."""

    days: frozenset[int]
    opens_minute: int
    closes_minute: int
    zone: str

    def __str__(self) -> str:
        """As `parse_window` reads it; the same window has the same text."""
        days = "" if self.days == EVERY_DAY else f"{_days_text(self.days)} "
        return f"{days}{_clock(self.opens_minute)}-{_clock(self.closes_minute)} {self.zone}"

    def opening(self, now: datetime) -> Opening:
        """The opening that holds `now`, else the next. Openings that touch are one; of one without an end, a week."""
        found: Opening | None = None
        for following in self._openings((now.astimezone(ZoneInfo(self.zone)) - timedelta(days=2)).date()):
            if following.closes_at <= now:
                continue
            if found is None:
                found = following
            elif following.opens_at <= found.closes_at and following.closes_at - now < timedelta(days=9):
                found = Opening(found.opens_at, max(found.closes_at, following.closes_at))
            else:
                return found
        raise AssertionError("unreachable: some day of a fortnight is one of the window's")

    def last_opening(self, now: datetime) -> Opening | None:
        """The one that closed last, at `now` or before; None where none did in the three weeks before."""
        moment, found = now - timedelta(days=21), None
        while (following := self.opening(moment)).closes_at <= now:
            moment = following.closes_at
            if self.opening(moment).opens_at > moment:  # else it is one without an end
                found = following
        return found

    def opens_text(self, now: datetime) -> str:
        """When it opens next, as its place says it: `at 22:00 Europe/Berlin`, with the day if that is another."""
        zone = ZoneInfo(self.zone)
        opens = self.opening(now).opens_at.astimezone(zone)
        day = "" if opens.date() == now.astimezone(zone).date() else f" on {opens:%Y-%m-%d}"
        return f"at {opens:%H:%M} {self.zone}{day}"

    def _openings(self, day: date) -> Iterator[Opening]:
        """From this day on for three weeks; one that a change of the clocks swallows is left out."""
        zone = ZoneInfo(self.zone)
        for number in range(21):
            first = day + timedelta(days=number)
            if first.weekday() not in self.days:
                continue
            last = first if self.closes_minute > self.opens_minute else first + timedelta(days=1)
            opening = Opening(_moment(first, self.opens_minute, zone, 0), _moment(last, self.closes_minute, zone, 1))
            if opening.opens_at < opening.closes_at:
                yield opening


@lru_cache(maxsize=1024)
def parse_window(text: str) -> Window:
    """Read `[days ]HH:MM-HH:MM zone`; days are such as `Mon-Fri`, `Sat,Sun` or `Fri-Mon,Wed`. Raises InvalidRequest."""
    found = _FORM.fullmatch(" ".join(text.split())) if len(text) <= MAX_LENGTH else None
    if found is None:
        raise InvalidRequest(f"window {text[:MAX_LENGTH]!r} is not of its form; {_HELP}")
    zone = found["zone"]
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(f"window {text!r}: there is no time zone {zone!r}; {_HELP}") from None
    opens, closes = _minute(found["opens"], text), _minute(found["closes"], text)
    if opens == closes or opens == 1440:
        raise InvalidRequest(f"window {text!r} has no length; for the whole day write 00:00-24:00")
    return Window(_parse_days(found["days"], text), opens, closes, zone)


def _moment(day: date, minute: int, zone: ZoneInfo, fold: int) -> datetime:
    """When the clocks of a place show a time: the first (fold 0) or second time; when they jump over it, the jump."""
    day, minute = day + timedelta(days=minute // 1440), minute % 1440
    local = datetime.combine(day, time(minute // 60, minute % 60), zone)
    early, late = local.replace(fold=1).astimezone(UTC), local.replace(fold=0).astimezone(UTC)
    if early >= late:  # a time that there is: once, or (fold 1 later than fold 0) twice
        return local.replace(fold=fold).astimezone(UTC)
    after = local.replace(fold=1).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        early, late = (early, middle) if middle.astimezone(zone).utcoffset() == after else (middle, late)
    return late.replace(microsecond=0)


def _parse_days(text: str | None, window: str) -> frozenset[int]:
    if text is None:
        return EVERY_DAY
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first.capitalize() not in DAYS or (dash and last.capitalize() not in DAYS):
            raise InvalidRequest(
                f"window {window!r}: {part!r} are no days; they are {', '.join(DAYS)}, Mon-Fri; {_HELP}"
            )
        begin = DAYS.index(first.capitalize())
        end = DAYS.index(last.capitalize()) if dash else begin
        days |= {(begin + number) % 7 for number in range((end - begin) % 7 + 1)}
    return frozenset(days)


def _days_text(days: frozenset[int]) -> str:
    """Runs of three and more with a dash."""
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(
        f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[day] for day in run) for run in runs
    )


def _minute(text: str, window: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > 1440:
        raise InvalidRequest(f"window {window!r}: {text} is no time of the day; {_HELP}")
    return hours * 60 + minutes


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
