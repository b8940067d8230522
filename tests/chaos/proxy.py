"""A proxy before the store that can be slow, busy, full or gone."""

from __future__ import annotations

import asyncio
import socket
import threading

MODES = ("pass", "slow", "busy", "full", "down")
SLOW_SECONDS = 0.4  # before each request is passed on
_REFUSALS = {"busy": (503, "SlowDown"), "full": (507, "XMinioStorageFull")}  # as MinIO says them


class StoreProxy:
    """Passes bytes on, or answers as `mode` says. A change of mode ends the connections that are open."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._mode = "pass"
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="store-proxy", daemon=True)
        self._thread.start()

    def set(self, mode: str) -> None:
        """pass; slow; busy: 503 for everything; full: 507 for what writes; down: connections are dropped."""
        assert mode in MODES, mode
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _set(self, mode: str) -> None:
        self._mode = mode
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        mode = self._mode
        try:
            if mode in ("pass", "slow"):
                await self._pass_on(reader, writer)
            elif mode in _REFUSALS:
                await self._answer(reader, writer, mode)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort() if mode == "down" else writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begin: bytes = b"") -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        self._writers.add(forth)
        try:
            forth.write(begin)
            await asyncio.gather(self._pump(reader, forth, self._mode == "slow"), self._pump(back, writer, False))
        finally:
            self._writers.discard(forth)
            forth.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, slow: bool) -> None:
        try:
            while data := await source.read(2**16):
                if slow:
                    await asyncio.sleep(SLOW_SECONDS)
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: str) -> None:
        """Refuse one request; a full store still reads."""
        head = await reader.readuntil(b"\r\n\r\n")
        if mode == "full" and head.split(b" ", 1)[0] in (b"GET", b"HEAD"):
            line, rest = head.split(b"\r\n", 1)
            await self._pass_on(reader, writer, line + b"\r\nConnection: close\r\n" + rest)
            return
        await reader.readexactly(_length_of(head))
        status, code = _REFUSALS[mode]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>".encode()
        start = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
        writer.write(f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


def _length_of(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
