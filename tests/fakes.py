"""Stand-ins where a test is about our rules and not about a server."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.db.queueing import Message


class ListBroker:
    """A queue as a list; `broken` makes it refuse."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.broken = False

    def publish(self, messages: Iterable[Message]) -> None:
        if self.broken:
            raise ConnectionError("the broker is away")
        self.published += messages

    def depth(self, model: str) -> int:
        return sum(message.model == model for message in self.published)
