"""Requests to the API: one way in, one place that knows keys, retries and problem documents."""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from orchestrator.client._errors import ConnectionFailed, error_for
from orchestrator.client._retries import RETRY_STATUSES, TryAgain, retry_after_seconds, with_retries

A = TypeVar("A", bound=BaseModel)


class Http:
    """A connection to one server with one key.

    Args:
        transport: for tests and proxies; None is httpx's own.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_seconds: float,
        max_retries: int,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._max_retries = max_retries
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "janus-batch"},
            timeout=timeout_seconds,
            transport=transport,
        )

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
    ) -> A:
        """Send a request and read its answer as `answer`. Raises ServerError and ConnectionFailed."""
        response = self.send(
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
    ) -> httpx.Response:
        """Send a request, again where that is safe.

        Args:
            repeatable: doing it twice is the same as once, as it always is with GET, DELETE and an idempotency key.
                Anything else is sent again only when the server surely did not act on it.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        given = {name: value for name, value in (params or {}).items() if value is not None}
        repeatable = repeatable or method in ("GET", "DELETE") or idempotency_key is not None

        def attempt() -> httpx.Response:
            try:
                response = self._client.request(method, path, params=given, json=body, headers=headers)
            except httpx.TransportError as error:
                failed = ConnectionFailed(
                    f"{self._client.base_url} did not answer: {error}. Is it up? (`janus doctor`)"
                )
                if repeatable or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise TryAgain(failed) from error
                raise failed from error
            if response.is_success:
                return response
            refused = error_for(response.status_code, _problem(response))
            if response.status_code in RETRY_STATUSES and (repeatable or response.status_code == 429):
                raise TryAgain(refused, retry_after_seconds(response))
            raise refused

        return with_retries(attempt, max_retries=self._max_retries)

    def close(self) -> None:
        self._client.close()


def new_idempotency_key() -> str:
    return str(uuid.uuid4())


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": response.text[:300] or response.reason_phrase}
