"""What a call does, written once: a generator that says what is to be done next, and a driver that does it.

A blocking driver serves `Client`, one that awaits serves `AsyncClient`. Neither knows what the steps are about, and
the steps do not know who drives them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Send:
    """Send a request to the API. The answer comes back, or httpx's error is raised where this was yielded."""

    method: str
    path: str
    params: Mapping[str, Any]
    body: Any
    headers: Mapping[str, str]
    timeout_seconds: float


@dataclass(frozen=True)
class Pause:
    """Let time go by."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call something that blocks: files, and the store. What it returns comes back, what it raises is raised."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand a value to whoever iterates."""

    value: T


@dataclass(frozen=True)
class _Ended(Generic[R]):
    value: R


Step: TypeAlias = Send | Pause | Work
Steps: TypeAlias = Generator[Step, Any, R]
"""A call that answers R."""
Stream: TypeAlias = Generator[Step | Emit[T], Any, R]
"""An iteration over T."""


def work(function: Callable[[], T]) -> Steps[T]:
    answer: T = yield Work(function)
    return answer


def drain(stream: Stream[T, R], take: Callable[[T], object]) -> Steps[R]:
    """Do a stream's steps, and give its values away one by one."""
    resume: Callable[[], Step | Emit[T]] = partial(next, stream)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            answer: R = end.value
            return answer
        if isinstance(step, Emit):
            take(step.value)
            resume = partial(stream.send, None)
            continue
        try:
            resume = partial(stream.send, (yield step))
        except BaseException as error:
            resume = partial(stream.throw, error)


class Driver:
    """Does steps one after the other in the thread that calls. Without a client there is nothing to send with."""

    def __init__(self, client: httpx.Client | None = None) -> None:
        self._client = client

    def run(self, steps: Steps[R]) -> R:
        found = self._advance(steps, partial(next, steps))
        assert isinstance(found, _Ended)
        return found.value

    def iterate(self, stream: Stream[T, Any]) -> Iterator[T]:
        with closing(stream):
            found = self._advance(stream, partial(next, stream))
            while isinstance(found, Emit):
                yield found.value
                found = self._advance(stream, partial(stream.send, None))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _advance(self, steps: Stream[T, R], resume: Callable[[], Step | Emit[T]]) -> Emit[T] | _Ended[R]:
        """Do steps until there is a value, or no step any more."""
        while True:
            try:
                step = resume()
            except StopIteration as end:
                return _Ended(end.value)
            if isinstance(step, Emit):
                return step
            try:
                resume = partial(steps.send, self._do(step))
            except BaseException as error:  # Ctrl-C too: the steps' files are closed where they were opened
                resume = partial(steps.throw, error)

    def _do(self, step: Step) -> Any:
        match step:
            case Send():
                assert self._client is not None
                return self._client.request(**_request(step))
            case Pause():
                return time.sleep(step.seconds)
            case Work():
                return step.function()


class AsyncDriver:
    """Does steps one after the other in the event loop; what blocks is called in a thread."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def run(self, steps: Steps[R]) -> R:
        found = await self._advance(steps, partial(next, steps))
        assert isinstance(found, _Ended)
        return found.value

    async def iterate(self, stream: Stream[T, Any]) -> AsyncIterator[T]:
        with closing(stream):
            found = await self._advance(stream, partial(next, stream))
            while isinstance(found, Emit):
                yield found.value
                found = await self._advance(stream, partial(stream.send, None))

    async def close(self) -> None:
        await self._client.aclose()

    async def _advance(self, steps: Stream[T, R], resume: Callable[[], Step | Emit[T]]) -> Emit[T] | _Ended[R]:
        while True:
            try:
                step = resume()
            except StopIteration as end:
                return _Ended(end.value)
            if isinstance(step, Emit):
                return step
            try:
                resume = partial(steps.send, await self._do(step))
            except BaseException as error:  # a cancelled task too
                resume = partial(steps.throw, error)

    async def _do(self, step: Step) -> Any:
        match step:
            case Send():
                return await self._client.request(**_request(step))
            case Pause():
                return await asyncio.sleep(step.seconds)
            case Work():
                return await asyncio.to_thread(step.function)


def _request(step: Send) -> dict[str, Any]:
    """Arguments of httpx's `request`, which both of its clients take."""
    return {
        "method": step.method,
        "url": step.path,
        "params": step.params,
        "json": step.body,
        "headers": step.headers,
        "timeout": step.timeout_seconds,
    }
