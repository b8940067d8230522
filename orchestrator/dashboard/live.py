"""Pages that follow what happens: pieces of them are sent again when they change, as server-sent events.

Each round asks Postgres, as a page that is loaded does, and whether the key of whoever looks is still live.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from fastapi import Response
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from orchestrator.api.streams import MAX_SECONDS, STREAMS
from orchestrator.domain.errors import NotFound

Pieces = dict[str, str]  # by the id of the element that each of them is


class Gone(Exception):
    """Nobody may see this any more: the page is loaded again, and says why."""


def follow(key_id: str, look: Callable[[], Pieces], *, every_seconds: float) -> Response:
    """A stream of what `look` sees that was not sent before, until it raises Gone or NotFound."""
    if not STREAMS.has_room(key_id):
        return Response(status_code=204)  # a browser does not ask again after this
    return EventSourceResponse(_changes(key_id, look, every_seconds), ping=15)


async def _changes(key_id: str, look: Callable[[], Pieces], every_seconds: float) -> AsyncIterator[dict[str, str]]:
    sent: Pieces = {}
    give_up_at = asyncio.get_running_loop().time() + MAX_SECONDS
    with STREAMS.one(key_id):
        while asyncio.get_running_loop().time() < give_up_at:
            try:
                pieces = await run_in_threadpool(look)
            except (Gone, NotFound):
                yield {"event": "gone", "data": ""}
                return
            changed = {name: html for name, html in pieces.items() if sent.get(name) != html}
            if changed:
                yield {"event": "pieces", "data": json.dumps(changed)}
                sent = pieces
            await asyncio.sleep(every_seconds)
