"""The results that an attempt need not compute: of its team's jobs, or of items that are computed beside its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from orchestrator.artifacts.base import ObjectMissing, ObjectStore
from orchestrator.db import reuse
from orchestrator.db.reuse import Place
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import JobRow
from orchestrator.domain.identity import Identities
from orchestrator.domain.items import Item
from orchestrator.domain.jobs import CaptionOptions, JobKind, options_for, options_of_item, seed_of
from orchestrator.domain.shards import image_file, image_name
from orchestrator.telemetry import get_logger
from workers import metrics
from workers.blocks import Blocks
from workers.board import Answered, Board

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Reused:
    """A record that was another item's before. `note`: its identity, where this job shall be known to hold it too."""

    record: Record
    source: str
    note: UUID | None = None


class Reuse:
    """Of one attempt. Threads of its pool `ask` and `take_over`; all else is for the thread that runs it.

    Args:
        board: of the process.
        weights: as of `Identities`.
        days: for how long a result may be used again; 0 is off, as is a job that does not want it.
    """

    def __init__(
        self,
        board: Board,
        sessions: SessionFactory,
        store: ObjectStore,
        job: JobRow,
        weights: Mapping[str, str],
        *,
        days: int,
    ) -> None:
        self._board, self._sessions, self._store = board, sessions, store
        self._job, self._weights, self._days = job, weights, days
        self._options = options_for(JobKind(job.kind), job.options)
        self._identities = Identities(job.team_id, weights, self._options)
        self._parts = Blocks(store)
        self._places: dict[UUID, Place | None] = {}  # what the database was asked for
        self._computing: dict[int, UUID] = {}  # items that others may wait for
        self.is_on = job.reuse and days > 0
        self.identities: dict[UUID, int] = {}  # of finished items that no part holds yet, those to be noted with it
        self.reused: set[int] = set()  # of the same items, those that were not computed

    def look_up(self, items: Iterable[Item]) -> None:
        """Ask the database once for all items whose images' digests came with them."""
        if self.is_on:
            given = (self._identity(item, _digests_of(item)) for item in items if item.failure is None)
            self._find({identity for identity in given if identity is not None})

    def ask(
        self, items: Sequence[Item], digests: Mapping[int, Sequence[str | None]] | None = None
    ) -> dict[int, Reused | Future[Answered | None]]:
        """Records, and answers to be of equal items, by index; items that are to be computed are left out.

        digests: the SHA-256 of each item's images, as this worker read them; those that came with it unless given. An
            item that was asked about before is asked about anew where its bytes are not what they were said to be.
        """
        if not self.is_on:
            return {}
        given = {
            item.index: self._identity(item, digests[item.index] if digests else _digests_of(item)) for item in items
        }
        self._find({identity for identity in given.values() if identity is not None} - self._places.keys())
        answers = {item.index: self._ask(item, given[item.index]) for item in items}
        return {index: answer for index, answer in answers.items() if answer is not None}

    def _ask(self, item: Item, identity: UUID | None) -> Reused | Future[Answered | None] | None:
        if identity is None or self._computing.get(item.index) == identity:
            return None
        self._settle(item, None)
        place = self._places[identity]
        answered = self._read(identity, place) if place is not None else None
        record = self._record(item, answered) if answered is not None else None
        if place is not None and record is not None:
            return Reused(record, "part", identity if place.is_fading else None)
        self._places[identity] = None
        taken = self._board.take(identity)
        if taken is None:
            self._computing[item.index] = identity
        return taken

    def take_over(self, item: Item, answered: Answered) -> Reused | None:
        """What an equal item was answered; None where its images are gone."""
        record = self._record(item, answered)
        if record is None:
            self._board.forget(answered.identity)
            return None
        return Reused(record, "worker")

    def finished(self, item: Item, result: Record | Reused) -> None:
        """The item has its record."""
        if isinstance(result, Reused):
            metrics.REUSED.labels(self._job.kind, result.source).inc()
            self.reused.add(item.index)
            if result.note is not None:
                self.identities[result.note] = item.index
        elif (identity := self._computing.get(item.index)) is not None:
            self.identities[identity] = item.index
            self._settle(item, Answered(identity, self._job.id, result))

    def failed(self, item: Item) -> None:
        """The item has none."""
        self._settle(item, None)

    def flushed(self) -> None:
        """A part holds all that is finished, and is true."""
        self.identities, self.reused = {}, set()

    def close(self) -> None:
        """Nothing more comes: whoever waits may compute it."""
        for identity in self._computing.values():
            self._board.settle(identity, None)
        self._computing = {}

    def _settle(self, item: Item, answered: Answered | None) -> None:
        identity = self._computing.pop(item.index, None)
        if identity is not None:
            self._board.settle(identity, answered)

    def _identity(self, item: Item, digests: Sequence[str | None]) -> UUID | None:
        known = [digest for digest in digests if digest is not None]
        if len(known) < len(digests):
            return None
        identities = self._identities
        if item.options:
            identities = Identities(self._job.team_id, self._weights, options_of_item(self._options, item.options))
        prompt = item.prompt or (self._options.prompt if isinstance(self._options, CaptionOptions) else "")
        return identities.of(prompt=prompt, seed=seed_of(self._options, item.index, item.seed), images=known)

    def _find(self, identities: set[UUID]) -> None:
        if not identities:
            return
        with self._sessions() as session:
            found = reuse.find(session, self._job.team_id, identities, days=self._days)
        self._places |= {identity: found.get(identity) for identity in identities}

    def _read(self, identity: UUID, place: Place) -> Answered | None:
        """The line in the part, which may be gone with its job."""
        try:
            data = self._parts.part("", place.key, 0, place.num_bytes)
        except ObjectMissing:
            return None
        if hashlib.sha256(data).hexdigest() != place.sha256:
            get_logger().warning("part_damaged", key=place.key)
            return None
        line = next(line for line in data.splitlines() if Item.index_of(line) == place.index)
        return Answered(identity, place.job_id, json.loads(line))

    def _record(self, item: Item, answered: Answered) -> Record | None:
        """As if the item had been computed: with its own seed, and images that are its job's own."""
        if self._job.kind == JobKind.caption:
            names = ("caption", "num_tokens", "finish_reason")
            return {name: answered.record[name] for name in names} | {
                "seed": seed_of(self._options, item.index, item.seed)
            }
        try:
            images = [self._copy(item, k, answered, image) for k, image in enumerate(answered.record["images"])]
        except ObjectMissing:
            return None
        return {"prompt": item.prompt, "images": images}

    @metrics.stage("store")
    def _copy(self, item: Item, k: int, answered: Answered, image: Record) -> Record:
        file = image_file(item.index, k)
        source = f"jobs/{answered.job_id}/{image_name(image['file'], image['sha256'])}"
        target = f"jobs/{self._job.id}/{image_name(file, image['sha256'])}"
        if source != target:  # which its own earlier attempt may have put
            self._store.copy(source, target)
        return image | {"file": file}


def _digests_of(item: Item) -> list[str | None]:
    return [image.sha256 for image in item.images]
