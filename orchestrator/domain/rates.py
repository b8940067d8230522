"""How often a team may call: a bucket of a minute's requests that fills up evenly.

Counted in the process, not in Redis: a request must not wait for one more server, nor be refused because it is away.
Several API processes each have their own count, so that a team gets the limit once from each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Requests left, for each team.

    Args:
        per_minute: 0 is no limit.
        clock: seconds, from any start.
    """

    MAX_KEPT = 10_000

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._full_at: dict[str, float] = {}  # when a team's bucket will be full again
        self._lock = threading.Lock()

    @property
    def num_kept(self) -> int:
        """Buckets that are remembered."""
        return len(self._full_at)

    def take(self, team_id: str) -> float:
        """Take one request: 0, or the seconds until there will be one, and then none is taken."""
        if self._per_minute <= 0:
            return 0.0
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.get(team_id, now), now) + 60 / self._per_minute
            wait_seconds = full_at - now - 60
            if wait_seconds > 1e-9:  # what floating point adds up wrongly
                return wait_seconds
            self._full_at[team_id] = full_at
            if len(self._full_at) > self.MAX_KEPT:  # full buckets say nothing
                self._full_at = {name: at for name, at in self._full_at.items() if at > now}
            return 0.0
