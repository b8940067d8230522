"""A replay: one item of a job, made again, beside the result that it had."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.client._errors import PackageMissing
from orchestrator.client._lines import Line, ResultLine
from orchestrator.client._outputs.columns import load_package
from orchestrator.client._outputs.earlier import Merged
from orchestrator.client._outputs.images import fetch_images, images_of
from orchestrator.client._steps import Steps, work
from orchestrator.domain.replays import compare_lines

if TYPE_CHECKING:
    from orchestrator.client._job import JobCalls


@dataclass(frozen=True)
class Replay:
    """What was, what came of the same item now, and in what they differ, a sentence each; in nothing where `same`.

    job: the id of the job that made it again. same_weights: both were made by the same revision of the model.
    """

    job: str
    before: ResultLine
    now: ResultLine
    differences: tuple[str, ...]
    same_weights: bool

    @property
    def same(self) -> bool:
        return not self.differences


def compare(first: JobCalls[Any], second: JobCalls[Any], before: ResultLine) -> Steps[Replay]:
    """Of a job and the replay of one of its items, which has ended. Raises NoResult, TransferFailed."""
    now = yield from second.look_at_line(0)
    found = compare_lines(before, now)
    pictures = []
    for k in found.images:
        pictures.append(f"picture {k}: " + (yield from _compare_pictures(first, second, before, now, k)))
    return Replay(second.id, before, now, (*found.words, *pictures), found.same_weights)


def _compare_pictures(
    first: JobCalls[Any], second: JobCalls[Any], before: ResultLine, now: ResultLine, k: int
) -> Steps[str]:
    one, other = (images_of(Merged(_line(line), line["index"])) for line in (before, now))
    both = [list(one)[k : k + 1], list(other)[k : k + 1]]
    if not all(both):
        return "there is one of it only"
    [old] = yield from fetch_images(first, both[0])
    [new] = yield from fetch_images(second, both[1])
    return (yield from work(partial(describe_pixels, old, new)))


def _line(line: ResultLine) -> Line:
    return {**line}


def describe_pixels(before: bytes, now: bytes) -> str:
    """How far two pictures are apart, of which the bytes differ."""
    try:
        pillow, chops = load_package("PIL.Image", "pictures"), load_package("PIL.ImageChops", "pictures")
    except PackageMissing as error:
        return f"its bytes differ; to compare pixels {error}"
    old, new = (pillow.open(io.BytesIO(data)).convert("RGB") for data in (before, now))
    if old.size != new.size:
        return f"it was {old.width} x {old.height} px and is {new.width} x {new.height} px"
    bands = chops.difference(old, new).split()
    largest = chops.lighter(chops.lighter(bands[0], bands[1]), bands[2])
    num_pixels, num_equal = old.width * old.height, largest.histogram()[0]
    if num_equal == num_pixels:
        return "the same pixels, written as other bytes"
    most = largest.getextrema()[1]
    return f"{num_pixels - num_equal} of {num_pixels} pixels differ, by {most} of 255 at most"
