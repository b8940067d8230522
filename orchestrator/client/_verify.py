"""The proof on a job: every accepted item once, and every byte as it was when it was made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.client._errors import TransferFailed
from orchestrator.client._transfers import URLS_AT_ONCE, in_groups
from orchestrator.domain.shards import image_name

if TYPE_CHECKING:
    from orchestrator.client._job import Job


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


def verify_job(job: Job) -> Verification:
    """Download manifest, results, failures, parts and images, and recompute every count and digest."""
    found = Verification(job.id)
    view = job.refresh()
    if not view.state.ended or view.manifest_sha256 is None:
        found.problems.append(f"the job is {view.state} and has no manifest; verify it once it has ended")
        return found
    checker = _Checker(job, found)
    manifest_bytes = checker.fetch("manifest.json", view.manifest_sha256)
    if manifest_bytes is None:
        return found
    manifest = json.loads(manifest_bytes)
    checker.check_counts(manifest, view.items.model_dump())
    results = checker.fetch("results.jsonl", manifest["objects"]["results.jsonl"]["sha256"])
    failures = checker.fetch("failures.jsonl", manifest["objects"]["failures.jsonl"]["sha256"])
    lines = [json.loads(line) for line in (results or b"").splitlines()] if results is not None else []
    if results is not None:
        checker.check_lines(lines, manifest["items"])
    if failures is not None and len(failures.splitlines()) != manifest["items"]["failures"]:
        found.problems.append("failures.jsonl does not hold as many failures as the manifest counts")
    parts = {part["key"].removeprefix(f"jobs/{job.id}/"): part["sha256"] for part in manifest["parts"]}
    checker.check_objects(parts)
    images = [image for line in lines for image in line.get("images", ())]
    checker.check_objects({image_name(image["file"], image["sha256"]): image["sha256"] for image in images})
    return found


class _Checker:
    def __init__(self, job: Job, found: Verification) -> None:
        self._job = job
        self._found = found

    def fetch(self, name: str, sha256: str) -> bytes | None:
        """The object's bytes, or None with a problem noted."""
        return self._check(name, sha256, self._job.urls([name])[0])

    def check_objects(self, digests: dict[str, str]) -> None:
        for group in in_groups(digests.items(), URLS_AT_ONCE):
            urls = self._job.urls([name for name, _ in group])
            work = [(name, sha256, url) for (name, sha256), url in zip(group, urls, strict=True)]
            self._job.transfers.map(lambda one: self._check(*one), work)

    def check_counts(self, manifest: dict[str, Any], counted: dict[str, int]) -> None:
        items = manifest["items"]
        if items["results"] + items["failures"] + items["cancelled"] != items["total"]:
            self._problem("results + failures + cancelled is not the number of items in the manifest")
        if items != counted:
            self._problem(f"the manifest counts {items}, the database {counted}")

    def check_lines(self, lines: list[dict[str, Any]], items: dict[str, int]) -> None:
        """Each index once and below the total; as many results and failures as counted; in order."""
        indexes = [line["index"] for line in lines]
        self._found.items = len(set(indexes))
        if len(set(indexes)) != len(indexes):
            self._problem("an item stands twice in results.jsonl")
        if indexes != sorted(indexes):
            self._problem("results.jsonl is not in item order")
        if any(not 0 <= index < items["total"] for index in indexes):
            self._problem("results.jsonl has an item that the job does not have")
        failed = sum("failure" in line for line in lines)
        if failed != items["failures"] or len(lines) - failed != items["results"]:
            self._problem("results.jsonl does not hold as many results and failures as the manifest counts")

    def _check(self, name: str, sha256: str, url: str) -> bytes | None:
        self._found.objects += 1
        try:
            data = self._job.fetch(url)
        except TransferFailed as error:
            self._problem(f"{name} cannot be read: {error}")
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            self._problem(f"{name} has changed: its SHA-256 is not the one that was recorded")
            return None
        return data

    def _problem(self, text: str) -> None:
        self._found.problems.append(text)
