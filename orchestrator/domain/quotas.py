"""Quotas: what a team may have begun at once, compute in a day, and keep in the store. What is unset has no limit.

Nothing that was begun is cut: a quota says whether one more shard may begin, or one more upload or job be made. A team
that has nothing begun, or nothing counted today, gets one shard however large that is, or it would wait for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.sizes import format_size

MAX_QUOTA = 2**53 - 1  # what JSON holds everywhere


@dataclass(frozen=True)
class Quota:
    """Limits of a team: items in flight, items a day, bytes in the store."""

    in_flight: int | None = None
    per_day: int | None = None
    stored_bytes: int | None = None

    @property
    def limits_turns(self) -> bool:
        """Whether it may hold back a shard."""
        return self.in_flight is not None or self.per_day is not None


@dataclass(frozen=True)
class Load:
    """A shard as quotas see it.

    Args:
        unfinished: its items without a result.
        countable: those that the day will count when it ends: all but the ones that were used again.
    """

    unfinished: int
    countable: int


@dataclass(frozen=True)
class Use:
    """in_flight: unfinished items of shards that were begun. today: what today counted, and what those will add."""

    in_flight: int = 0
    today: int = 0

    def plus(self, load: Load) -> Use:
        return replace(self, in_flight=self.in_flight + load.unfinished, today=self.today + load.countable)


def why_not(quota: Quota, use: Use, load: Load) -> str | None:
    """Why a shard may not begin now, as a sentence; None where it may."""
    per_day, in_flight = quota.per_day, quota.in_flight
    if per_day is not None and use.today and use.today + load.countable > per_day:
        used = "is used" if use.today >= per_day else f"has no room for another shard ({use.today} are used)"
        return f"the team's quota of {per_day} items a day {used}; it goes on at 00:00 UTC"
    if in_flight is not None and use.in_flight and use.in_flight + load.unfinished > in_flight:
        return f"the team's quota of {in_flight} items in flight is used; it goes on as they are finished"
    return None


class Rooms:
    """What teams may still begin while shards are chosen. Teams without a quota are not in it, and may anything."""

    def __init__(self, quotas: Mapping[str, Quota], uses: Mapping[str, Use]) -> None:
        self._quotas = dict(quotas)
        self._uses = {team_id: uses.get(team_id, Use()) for team_id in quotas}
        self._full: set[str] = set()

    def has(self, team_id: str, load: Load) -> bool:
        quota = self._quotas.get(team_id)
        return quota is None or why_not(quota, self._uses[team_id], load) is None

    def take(self, team_id: str, load: Load) -> bool:
        """Begin a shard if there is room. Where there was none, a smaller one behind it does not overtake it."""
        if team_id in self._full or not self.has(team_id, load):
            self._full.add(team_id)
            return False
        if team_id in self._uses:
            self._uses[team_id] = self._uses[team_id].plus(load)
        return True


def check_stored(quota: Quota, stored_bytes: int, measured_at: datetime | None) -> None:
    """Raises InvalidRequest, `quota_exceeded`, where a team keeps as much as it may."""
    limit = quota.stored_bytes
    if limit is None or stored_bytes < limit:
        return
    when = f", measured at {measured_at:%Y-%m-%d %H:%M} UTC" if measured_at else ""
    raise InvalidRequest(
        f"the team keeps {stored_bytes} bytes ({format_size(stored_bytes)}{when}), and its quota is {limit} bytes "
        f"({format_size(limit)}). Delete what is not needed any more (`janus jobs delete ID`; it counts until its "
        "objects are gone, a minute or so), or ask an operator for more (`janus teams quota`).",
        code="quota_exceeded",
    )


def day_of(moment: datetime) -> date:
    """Days are those of UTC."""
    return moment.astimezone(UTC).date()


def next_day(moment: datetime) -> datetime:
    """When the day's quota is whole again."""
    return datetime.combine(day_of(moment) + timedelta(days=1), time(), UTC)
