"""The proof on a job: every accepted item once, and every byte as it was when it was made."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from orchestrator.client._errors import TransferFailed
from orchestrator.client._lines import read_lines
from orchestrator.client._steps import Steps, work
from orchestrator.client._transfers import URLS_AT_ONCE, in_groups
from orchestrator.domain.shards import image_name

if TYPE_CHECKING:
    from orchestrator.client._job import JobCalls


@dataclass
class Verification:
    """What was looked at, and what is wrong with it."""

    job: str
    items: int = 0
    objects: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_job(job: JobCalls[Any]) -> Steps[Verification]:
    """Download manifest, results, failures, parts and images, and recompute every count and digest."""
    found = Verification(job.id)
    view = yield from job.look()
    if not view.state.ended or view.manifest_sha256 is None:
        found.problems.append(f"the job is {view.state} and has no manifest; verify it once it has ended")
        return found
    checker = _Checker(job, found)
    manifest_file = io.BytesIO()
    if not (yield from checker.fetch("manifest.json", view.manifest_sha256, manifest_file)):
        return found
    manifest = json.loads(manifest_file.getvalue())
    checker.check_counts(manifest, view.items.model_dump())
    objects, prefix = manifest["objects"], f"jobs/{job.id}/"
    with tempfile.TemporaryFile() as failures:
        if (yield from checker.fetch("failures.jsonl", objects["failures.jsonl"]["sha256"], failures)):
            yield from work(partial(checker.check_failures, failures, manifest["items"]))
    yield from checker.check_objects((part["key"].removeprefix(prefix), part["sha256"]) for part in manifest["parts"])
    with tempfile.TemporaryFile() as results:
        if (yield from checker.fetch("results.jsonl", objects["results.jsonl"]["sha256"], results)):
            yield from work(partial(checker.check_lines, results, manifest["items"]))
            images = (image for line in read_lines(results) for image in line.get("images", ()))
            names = ((image_name(image["file"], image["sha256"]), image["sha256"]) for image in images)
            yield from checker.check_objects(names)
    return found


class _Checker:
    def __init__(self, job: JobCalls[Any], found: Verification) -> None:
        self._job = job
        self._found = found

    def fetch(self, name: str, sha256: str, file: IO[bytes]) -> Steps[bool]:
        """Write an object to `file`; False with a problem noted where it is not as it was made."""
        (url,) = yield from self._job.make_urls([name])
        return (yield from work(partial(self._check, name, sha256, url, file)))

    def check_objects(self, digests: Iterable[tuple[str, str]]) -> Steps[None]:
        groups = in_groups(digests, URLS_AT_ONCE)
        while group := (yield from work(partial(next, groups, None))):
            urls = yield from self._job.make_urls([name for name, _ in group])
            each = [(name, sha256, url) for (name, sha256), url in zip(group, urls, strict=True)]
            yield from work(partial(self._job.transfers.map, lambda one: self._check(*one), each))

    def check_counts(self, manifest: dict[str, Any], counted: dict[str, int]) -> None:
        items = manifest["items"]
        if items["results"] + items["failures"] + items["cancelled"] != items["total"]:
            self._problem("results + failures + cancelled is not the number of items in the manifest")
        if any(counted.get(name) != count for name, count in items.items()):
            self._problem(f"the manifest counts {items}, the database {counted}")

    def check_failures(self, failures: IO[bytes], items: dict[str, int]) -> None:
        if sum(1 for _ in read_lines(failures)) != items["failures"]:
            self._problem("failures.jsonl does not hold as many failures as the manifest counts")

    def check_lines(self, results: IO[bytes], items: dict[str, int]) -> None:
        """Each index once, in order and below the total; as many results and failures as counted."""
        last, failed, problems = -1, 0, set()
        for line in read_lines(results):
            index = line["index"]
            self._found.items += 1
            failed += "failure" in line
            if index == last:
                problems.add("an item stands twice in results.jsonl")
            elif index < last:
                problems.add("results.jsonl is not in item order")
            if not 0 <= index < items["total"]:
                problems.add("results.jsonl has an item that the job does not have")
            last = index
        if failed != items["failures"] or self._found.items - failed != items["results"]:
            problems.add("results.jsonl does not hold as many results and failures as the manifest counts")
        self._found.problems += sorted(problems)

    def _check(self, name: str, sha256: str, url: str, file: IO[bytes] | None = None) -> bool:
        self._found.objects += 1
        try:
            digest = self._job.transfers.get_into(url, file)
        except TransferFailed as error:
            self._problem(f"{name} cannot be read: {error}")
            return False
        if digest != sha256:
            self._problem(f"{name} has changed: its SHA-256 is not the one that was recorded")
        return digest == sha256

    def _problem(self, text: str) -> None:
        self._found.problems.append(text)
