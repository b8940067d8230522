"""`janus replay`: make one item again, and say whether the same came of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import SOME_FAILED, AsJson, note, print_json, printable, told_errors


def replay(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")],
    index: Annotated[int, typer.Argument(metavar="INDEX", min=0, help="The item's index in it, from 0.")],
    as_json: AsJson = False,
) -> None:
    """Make one item of a job again and compare: exit 0 where it is the same, 3 where it differs."""
    with told_errors():
        found = connect().attach(job_id).replay(index, progress=True)
    if as_json:
        print_json({"same": found.same, **asdict(found)})
    else:
        print(f"item {index} of {job_id}, made again by {found.job}: {'the same' if found.same else 'different'}")
        for difference in found.differences:
            print(f"  {printable(difference)}")
    if not found.same_weights:
        before, now = (str(line.get("revision", "unknown")) for line in (found.before, found.now))
        note(f"the model's weights are others: revision {before} before, {now} now")
    if not found.same:
        raise typer.Exit(SOME_FAILED)
