"""`make chaos`: storms, crash points or blind runs. The last line is JSON; the exit status 1 where one found fault."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos import scripted, storm
from tests.chaos.engine import ROWS
from tests.chaos.points import POINTS
from tests.chaos.storm import Outcome
from tests.chaos.world import WORKERS, World

WORK_SECONDS = 8  # for which the two workers would be busy with a storm's items if nothing happened
SCRIPTED_STEP_SECONDS = 0.15


def main() -> int:
    options = _parser().parse_args()
    if options.points:
        return hit_points(options.only)
    if options.blind:
        return blind_runs()
    return storms(options)


def storms(options: argparse.Namespace) -> int:
    step_seconds = min(0.25, ROWS * len(WORKERS) * WORK_SECONDS / options.items)
    outcomes = []
    with running(options.settings == "production", step_seconds) as world:
        for seed in range(options.seed, options.seed + options.storms):
            planned = storm.plan(seed, options.items, [name for name in options.faults.split(",") if name])
            what = ", ".join(f"{name} at {share:.0%}" for share, name, _ in planned.strikes)
            print(f"storm {seed} (make chaos STORMS=1 SEED={seed} ITEMS={options.items}): {what}", flush=True)
            outcomes.append(storm.run(world, planned))
            _tell(outcomes[-1])
            if outcomes[-1].findings.stuck:
                print(world.system.log_ends(), flush=True)
    print(json.dumps(summary(outcomes)))
    return 0 if all(outcome.findings.ok for outcome in outcomes) else 1


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """What the last line says; `wrong` counts the sentences of all findings."""
    recoveries: dict[str, list[float | None]] = {}
    for outcome in outcomes:
        for name, seconds in outcome.recoveries:
            recoveries.setdefault(name, []).append(seconds)
    findings = [outcome.findings for outcome in outcomes]
    return {
        "storms": len(outcomes),
        "items": sum(found.items for found in findings),
        "lost": sum(found.lost for found in findings),
        "twice": sum(found.twice for found in findings),
        "stuck": sum(found.stuck for found in findings),
        "wrong": sum(len(found.wrong) for found in findings),
        "faults": {name: _described(times) for name, times in sorted(recoveries.items())},
    }


def hit_points(only: str = "") -> int:
    """Every named crash point whose name holds `only`, one by one."""
    bad = []
    with running(False, SCRIPTED_STEP_SECONDS) as world:
        for point in POINTS:
            if only not in point.name:
                continue
            has_died, findings = scripted.hit(world, point)
            ok = has_died and findings.ok
            print(f"{'holds' if ok else 'FAILS'}  {point.name}", *findings.wrong[:5], sep="\n  ", flush=True)
            if not has_died:
                print(f"  {point.process} never came to it", flush=True)
            if not ok:
                bad.append(point.name)
    print(json.dumps({"points": sum(only in point.name for point in POINTS), "failed": bad}))
    return 1 if bad else 0


def blind_runs() -> int:
    """With each guard on the checker finds nothing; with it off it must find something."""
    seen: dict[str, dict[str, int]] = {}
    is_ok = True
    with running(False, SCRIPTED_STEP_SECONDS) as world:
        for guard, run in scripted.BLIND.items():
            world.set_off("")
            guarded = run(world)
            world.set_off(guard)
            blind = run(world)
            print(f"{guard} on: {guarded}\n{guard} off: {blind}", flush=True)
            is_ok = is_ok and guarded.ok and not blind.ok
            seen[guard] = {"lost": blind.lost, "twice": blind.twice, "stuck": blind.stuck}
    print(json.dumps({"seen_without": seen, "ok": is_ok}))
    return 0 if is_ok else 1


@contextmanager
def running(production: bool, step_seconds: float) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="janus-chaos-") as folder:
        home = Path(os.environ.get("CHAOS_HOME") or folder)  # where logs stay
        world = World(home, production=production, step_seconds=step_seconds)
        try:
            yield world
        finally:
            world.close()


def _tell(outcome: Outcome) -> None:
    found = outcome.findings
    verdict = "holds" if found.ok else f"FAILS: {found.lost} lost, {found.twice} twice, {found.stuck} stuck"
    print(f"  {verdict}; {found.items} items in {outcome.seconds:.1f} s", flush=True)
    for text in found.wrong[:20]:
        print(f"  {text}", flush=True)
    print("  recovered: " + ", ".join(f"{name} {_seconds(time)}" for name, time in outcome.recoveries), flush=True)


def _seconds(time: float | None) -> str:
    return "-" if time is None else f"{time:.1f} s"


def _described(times: list[float | None]) -> dict[str, Any]:
    known = [time for time in times if time is not None]
    return {
        "count": len(times),
        "median_recovery_s": round(statistics.median(known), 2) if known else None,
        "worst_recovery_s": round(max(known), 2) if known else None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--storms", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--settings", choices=("short", "production"), default="short")
    parser.add_argument("--faults", default="", help="only these, comma-separated, instead of some of all")
    parser.add_argument("--points", action="store_true", help="every crash point instead of storms")
    parser.add_argument("--only", default="", help="only points whose name holds this")
    parser.add_argument("--blind", action="store_true", help="the guards switched off, one by one, instead of storms")
    return parser


if __name__ == "__main__":
    sys.exit(main())
