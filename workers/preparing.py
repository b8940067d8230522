"""Items to what the engine is asked: fetched, looked up among the results there are, decoded, tokenised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from PIL import Image

from orchestrator.db.tables import JobRow
from orchestrator.domain.items import Item
from orchestrator.domain.jobs import JobKind, options_for, options_of_item, seed_of
from workers.board import Answered
from workers.engine_host import EngineHost, Ticket
from workers.errors import BadInput
from workers.inputs import Inputs
from workers.requests import place_of_image, requests_of
from workers.reuse import Reuse, Reused

Prepared: TypeAlias = Ticket | Reused | Future[Answered | None] | Exception


class Preparer:
    """Of one attempt; any thread of its pool may ask."""

    def __init__(self, host: EngineHost, inputs: Inputs, reuse: Reuse, job: JobRow) -> None:
        self._host, self._inputs, self._reuse, self._job = host, inputs, reuse, job
        self._options = options_for(JobKind(job.kind), job.options)
        self._image_settings = host.image_settings(job.model)

    def prepare(self, items: Sequence[Item]) -> list[Prepared]:
        """A ticket for each item, or its result where that is there or on its way, or what went wrong with it.

        Faults of the world are raised.
        """
        known: dict[int, Prepared] = dict(self._reuse.ask(items))
        files = self._fetch([item for item in items if item.index not in known])
        if files and self._reuse.is_on:
            known |= self._reuse.ask([item for item in items if item.index in files], _digests(files))
        unknown = [item for item in items if item.index not in known]
        images = iter(self._decode(unknown, files))
        known |= {item.index: self._ticket(item, [next(images) for _ in item.images]) for item in unknown}
        return [known[item.index] for item in items]

    def _fetch(self, items: Sequence[Item]) -> dict[int, list[bytes | BadInput]]:
        """The files of those items that have some, by index."""
        wanted = [(place_of_image(item, k), image) for item in items for k, image in enumerate(item.images)]
        fetched = iter(self._inputs.fetch(wanted, team_id=self._job.team_id) if wanted else [])
        return {item.index: [next(fetched) for _ in item.images] for item in items if item.images}

    def _decode(self, items: Sequence[Item], files: dict[int, list[bytes | BadInput]]) -> list[Image.Image | BadInput]:
        wanted = [(place_of_image(item, k), file) for item in items for k, file in enumerate(files.get(item.index, ()))]
        return self._inputs.decode(wanted, fit=self._image_settings) if wanted else []

    def _ticket(self, item: Item, images: Sequence[Image.Image | BadInput]) -> Ticket | Exception:
        try:
            options, seed = options_of_item(self._options, item.options), seed_of(self._options, item.index, item.seed)
            requests = requests_of(item, options, images, seed)
            return self._host.prepare(self._job.model, requests, job=self._job.id, order=item.index)
        except Exception as error:
            return error


def _digests(files: dict[int, list[Any]]) -> dict[int, list[str | None]]:
    """The SHA-256 of each file that is there."""
    return {
        index: [hashlib.sha256(file).hexdigest() if isinstance(file, bytes) else None for file in own]
        for index, own in files.items()
    }
