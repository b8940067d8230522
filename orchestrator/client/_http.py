"""Requests to the API as steps: one place that knows retries, idempotency keys and problem documents."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from orchestrator.client._errors import ConnectionFailed, error_for
from orchestrator.client._retries import RETRY_STATUSES, TryAgain, retry_after_seconds, with_retries
from orchestrator.client._steps import Emit, Send, Steps, Stream

A = TypeVar("A", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class Api:
    """How a server is asked."""

    url: str
    timeout_seconds: float
    max_retries: int

    def call(
        self,
        answer: type[A],
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> Steps[A]:
        """Send a request and read its answer as `answer`. Raises ServerError and ConnectionFailed."""
        response = yield from self.send(
            method, path, params=params, body=body, idempotency_key=idempotency_key, repeatable=repeatable
        )
        return answer.model_validate_json(response.content)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> Steps[httpx.Response]:
        """Send a request, again where that is safe.

        Args:
            repeatable: doing it twice is the same as once, as it always is with GET, DELETE and an idempotency key.
                Anything else is sent again only when the server surely did not act on it.
        """
        headers = {"X-Request-Id": f"req_{secrets.token_hex(8)}"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        given = {name: value for name, value in (params or {}).items() if value is not None}
        step = Send(method, path, given, body, headers, self.timeout_seconds)
        repeatable = repeatable or method in ("GET", "DELETE") or idempotency_key is not None
        return (yield from with_retries(lambda: self._try(step, repeatable), max_retries=self.max_retries))

    def listed(
        self,
        answer: type[A],
        path: str,
        cursor: str,
        read: Callable[[A], tuple[Iterable[T], str | int | None]],
        *,
        params: dict[str, Any] | None = None,
    ) -> Stream[T, None]:
        """What a list holds, page by page.

        Args:
            cursor: the parameter that says where a page begins; the first page has none.
            read: a page's entries, and where the next one begins: None behind the last.
        """
        begin: str | int | None = None
        while True:
            page = yield from self.call(answer, "GET", path, params={**(params or {}), cursor: begin})
            entries, begin = read(page)
            for entry in entries:
                yield Emit(entry)
            if begin is None:
                return

    def _try(self, step: Send, repeatable: bool) -> Steps[httpx.Response]:
        try:
            response: httpx.Response = yield step
        except httpx.TransportError as error:
            told = f"{self.url} did not answer: {error}. Is it up? (`janus doctor`)"
            failed = ConnectionFailed(told, step.headers["X-Request-Id"])
            if repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise TryAgain(failed) from error
            raise failed from error
        if response.is_success:
            return response
        refused = error_for(response.status_code, _problem(response), retry_after_seconds(response))
        if response.status_code in RETRY_STATUSES and (repeatable or response.status_code == 429):
            raise TryAgain(refused, refused.retry_after_seconds)
        raise refused


def new_idempotency_key() -> str:
    return str(uuid.uuid4())


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": response.text[:300] or response.reason_phrase}
