"""Named places at which a process can be made to die, each hit once: `make chaos POINTS=1`.

Production code has no hook for this: a process that is started with CHAOS_POINT wraps the named function.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

DIED = 86


@dataclass(frozen=True)
class Point:
    """One crash point.

    Args:
        process: which one dies there.
        target: module:function.
        when: `before` the function, `returned` from it, or `committed`, right after its transaction.
        trouble: what must happen for the process to come there: see `scripted.hit`.
    """

    name: str
    process: str
    target: str
    when: str
    trouble: str = ""

    @property
    def spec(self) -> str:
        return f"{self.target}/{self.when}/kill"


LEASES, EXPIRY, JOBS = "orchestrator.db.leases", "orchestrator.db.expiry", "orchestrator.db.jobs"
MERGE = "orchestrator.dispatch.finisher:Finisher._merge_shards"
POINTS = (
    Point("API: job made, not committed", "api", f"{JOBS}:create_job", "returned"),
    Point("API: job committed, not answered", "api", f"{JOBS}:create_job", "committed"),
    Point("reader: shards written, not committed", "dispatcher", f"{JOBS}:start", "before"),
    Point("reader: job running", "dispatcher", f"{JOBS}:start", "committed"),
    Point("dispatcher: before publish", "dispatcher", "orchestrator.db.queueing:dispatch", "committed"),
    Point("dispatcher: after publish", "dispatcher", "orchestrator.dispatch.broker:CeleryBroker.publish", "returned"),
    Point("reconciler: before publish", "dispatcher", "orchestrator.db.queueing:take_unanswered", "committed", "flush"),
    Point("worker: before the lease", "worker-0", "workers.runner:Runner._run", "before"),
    Point("worker: after the lease", "worker-0", f"{LEASES}:take_lease", "committed"),
    Point("worker: between flush and commit", "worker-0", f"{LEASES}:append_part", "before"),
    Point("worker: part written, not committed", "worker-0", f"{LEASES}:append_part", "returned"),
    Point("worker: part committed", "worker-0", f"{LEASES}:append_part", "committed"),
    Point("worker: before done", "worker-0", f"{LEASES}:finish_shard_if_leased", "before"),
    Point("worker: done, message not acked", "worker-0", f"{LEASES}:finish_shard_if_leased", "committed"),
    Point("worker: before giving back", "worker-0", f"{LEASES}:release_shard_if_leased", "before", "pause"),
    Point("worker: after giving back", "worker-0", f"{LEASES}:release_shard_if_leased", "committed", "pause"),
    Point("reaper: expired, not committed", "dispatcher", f"{EXPIRY}:retry_expired", "returned", "kill"),
    Point("reaper: halved, not committed", "dispatcher", f"{EXPIRY}:halve_expired", "returned", "poison"),
    Point("reaper: failure stored, not committed", "dispatcher", f"{EXPIRY}:finish_expired", "before", "poison"),
    Point("finisher: begun", "dispatcher", f"{JOBS}:begin_finishing", "committed"),
    Point("finisher: merged, nothing stored", "dispatcher", MERGE, "returned"),
    Point("finisher: between manifest and completion", "dispatcher", f"{JOBS}:finish", "before"),
    Point("finisher: completed", "dispatcher", f"{JOBS}:finish", "committed"),
)  # fmt: skip


def arm(spec: str) -> None:
    """Wrap the function that the spec names, `module:function/when/action/n`.

    action is `kill` or `freeze`, and n is which call of the function it is that brings it; 1 where it is left out.
    """
    target, when, action, *number = spec.split("/")
    holder, name, function = find(target)
    strike = functools.partial(os._exit, DIED) if action == "kill" else _freeze
    setattr(holder, name, _wrapped(function, when, _at_call(int(number[0]) if number else 1, strike)))


def find(target: str) -> tuple[Any, str, Callable[..., Any]]:
    """(what holds it, its name there, the function) of `module:function` or `module:class.function`."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    holder = functools.reduce(getattr, outer, import_module(module))
    return holder, name, getattr(holder, name)


def _freeze() -> None:
    """Stop the whole process, as a machine that is suspended."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _at_call(number: int, strike: Callable[[], None]) -> Callable[[], None]:
    """What strikes when it is called for the n-th time, and never again."""
    calls = itertools.count(1)
    return lambda: strike() if next(calls) == number else None


def _wrapped(function: Callable[..., Any], when: str, strike: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **values: Any) -> Any:
        if when == "before":
            strike()
        answer = function(*arguments, **values)
        if answer is None or answer:  # nothing was done where it is False, 0 or empty
            if when == "returned":
                strike()
            elif when == "committed":
                session = next(argument for argument in arguments if isinstance(argument, Session))
                event.listen(session, "after_commit", lambda _: strike(), once=True)
        return answer

    return wrapper
