"""What a storm asks for, and what must come of it."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from PIL import Image

from tests.chaos.answers import POISON, Colour

COLOURS: tuple[Colour, ...] = tuple((40 * n, 255 - 30 * n, 17 * n) for n in range(6))
TRY_AGAIN_SECONDS = 0.3


@dataclass(frozen=True)
class Expected:
    """One item. `code` is of the failure that it must become; None where it must get a result."""

    id: str
    prompt: str
    colour: Colour | None = None  # of the picture to caption
    code: str | None = None


@dataclass
class Work:
    """One job, and its id once it was made."""

    name: str
    kind: str
    items: list[Expected]
    shard_items: int
    priority: int = 0
    may_be_cancelled: bool = False
    has_deadline: bool = False
    job_id: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)


def pictures(name: str, count: int, dice: random.Random, shard_items: int = 20, **values: Any) -> Work:
    """A generation job; one prompt in a hundred is blank."""
    items = []
    for n in range(count):
        blank = dice.random() < 0.01
        prompt = " " if blank else f"{name} {n}"
        items.append(Expected(f"{name}-{n}", prompt, code="prompt_empty" if blank else None))
    lines = [{"id": item.id, "prompt": item.prompt} for item in items]
    return Work(name, "generate", items, shard_items, lines=lines, **values)


def captions(name: str, count: int, dice: random.Random, shard_items: int = 32, **values: Any) -> Work:
    """A captioning job over six pictures; one item in a hundred names a picture that is broken or missing."""
    items, lines = [], []
    for n in range(count):
        number = dice.randrange(len(COLOURS))
        image, code = f"{number}.png", None
        if dice.random() < 0.01:
            image, code = dice.choice([("broken.png", "image_unreadable"), ("missing.png", "image_missing")])
        items.append(Expected(f"{name}-{n}", f"what is {name} {n}", COLOURS[number], code))
        lines.append({"id": items[-1].id, "prompt": items[-1].prompt, "image": image})
    return Work(name, "caption", items, shard_items, lines=lines, **values)


def poisoned(name: str, count: int, place: int, shard_items: int) -> Work:
    """A generation job with one prompt that kills the worker."""
    items = [Expected(f"{name}-{n}", f"{name} {n}") for n in range(count)]
    items[place] = Expected(f"{name}-{place}", POISON, code="worker_crashed")
    lines = [{"id": item.id, "prompt": item.prompt} for item in items]
    return Work(name, "generate", items, shard_items, priority=10, lines=lines)


class Submitter:
    """A client that never gives up: every request is repeated with its idempotency key until it is answered.

    Args:
        deadline_seconds: from when a work that has a deadline is submitted.
    """

    def __init__(self, url: str, key: str, *, patience_seconds: float, deadline_seconds: float = 60) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20)
        self._patience_seconds = patience_seconds
        self._deadline_seconds = deadline_seconds

    def close(self) -> None:
        self._http.close()

    def submit(self, work: Work, key: str) -> None:
        """Make the job; sets `work.job_id`."""
        body = {"name": work.name, "kind": work.kind, "model": "chaos", "shard_items": work.shard_items, "reuse": False,
                "priority": work.priority, "input": {"items": work.lines}}  # fmt: skip
        if work.kind == "caption":
            body["input"] = {"upload": self._upload(work, key), "manifest": "manifest.jsonl"}
        if work.has_deadline:
            body["deadline_at"] = (datetime.now(UTC) + timedelta(seconds=self._deadline_seconds)).isoformat()
        work.job_id = self._post("/v1/jobs", body, key)["id"]

    def ask(self, work: Work, verb: str) -> int:
        """Cancel, pause or resume; the status: 409 where the job has ended already."""
        return self._until_answered(lambda: self._http.post(f"/v1/jobs/{work.job_id}/{verb}")).status_code

    def _upload(self, work: Work, key: str) -> str:
        upload: str = self._post("/v1/uploads", None, f"{key}/upload")["id"]
        objects = {f"{n}.png": _png(colour) for n, colour in enumerate(COLOURS)} | {"broken.png": _png((0, 0, 0))[:40]}
        objects["manifest.jsonl"] = "".join(json.dumps(line) + "\n" for line in work.lines).encode()
        for name, data in objects.items():
            self._until_answered(lambda name=name, data=data: self._put(upload, name, data))  # type: ignore[misc]
        return upload

    def _put(self, upload: str, name: str, data: bytes) -> httpx.Response:
        answer = self._http.post(f"/v1/uploads/{upload}/urls", json={"names": [name]})
        answer.raise_for_status()
        return httpx.put(answer.json()["urls"][0], content=data, timeout=20)

    def _post(self, path: str, body: dict[str, Any] | None, key: str) -> dict[str, Any]:
        answer = self._until_answered(lambda: self._http.post(path, json=body, headers={"Idempotency-Key": key}))
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def _until_answered(self, call: Callable[[], httpx.Response]) -> httpx.Response:
        give_up_at = time.monotonic() + self._patience_seconds
        while True:
            try:
                answer = call()
                if answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                    return answer
                trouble = answer.text
            except httpx.HTTPError as error:
                trouble = repr(error)
            if time.monotonic() > give_up_at:
                raise AssertionError(f"no answer within {self._patience_seconds} s: {trouble}")
            time.sleep(TRY_AGAIN_SECONDS)


def _png(colour: Colour) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(buffer, "PNG")
    return buffer.getvalue()
