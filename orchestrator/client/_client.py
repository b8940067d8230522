"""The client, twice: `Client` blocks, `AsyncClient` is awaited. Their calls are the same ones, written once."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx

from orchestrator.client._administration import Administration
from orchestrator.client._errors import ClientError
from orchestrator.client._faces import Awaited, Blocking, Call, Listing
from orchestrator.client._http import Api
from orchestrator.client._job import AsyncJob, J, Job
from orchestrator.client._roundtrip import RoundTrips
from orchestrator.client._steps import AsyncDriver, Driver, Steps, Stream
from orchestrator.client._transfers import Transfers
from orchestrator.domain.jobs import JobState
from orchestrator.domain.keys import PREFIX, parse_key
from orchestrator.schemas import JobPage, JobView


class ClientCalls(Administration[J], RoundTrips[J]):
    """A server and a key.

    Args:
        url: the API's address; `JANUS_URL` where it is left out.
        key: the team's key; `JANUS_API_KEY` where it is left out.
        timeout_seconds: for an answer of the API; a request that got none is sent again where that is safe.
        max_retries: of each request.
        transport: an httpx transport, for proxies and tests.
    """

    url: str

    def _open(self, url: str | None, key: str | None, timeout_seconds: float, max_retries: int) -> dict[str, Any]:
        """Arguments of httpx's client."""
        url, key = url or os.environ.get("JANUS_URL"), key or os.environ.get("JANUS_API_KEY")
        if not url:
            raise ClientError(
                "no server: set JANUS_URL and JANUS_API_KEY (`janus up` prints those of the local stack), or pass url="
            )
        if not key:
            raise ClientError("no key: set JANUS_API_KEY, or pass key=; an admin makes one with `janus keys create`")
        if key.startswith(PREFIX) and parse_key(key) is None:
            raise ClientError("the key is mistyped or cut: its last six characters do not fit the rest")
        self.url = url
        self._api = Api(url, timeout_seconds, max_retries)
        self._transfers = Transfers(max_retries=max_retries + 1)
        headers = {"Authorization": f"Bearer {key}", "User-Agent": "janus-batch"}
        return {"base_url": url, "headers": headers}

    def with_options(self, *, timeout_seconds: float | None = None, max_retries: int | None = None) -> Self:
        """The same server, key and connections with another timeout or number of retries; close either of them."""
        other = copy.copy(self)
        other._api = replace(
            self._api,
            timeout_seconds=self._api.timeout_seconds if timeout_seconds is None else timeout_seconds,
            max_retries=self._api.max_retries if max_retries is None else max_retries,
        )
        other._transfers = self._transfers.with_retries(other._api.max_retries + 1)
        return other

    @Call
    def attach(self, job_id: str) -> Steps[J]:
        """A job by its id, from anywhere, at any time."""
        return self._job((yield from self._api.call(JobView, "GET", f"/v1/jobs/{job_id}")))

    @Listing
    def jobs(self, *, state: JobState | str | None = None) -> Stream[J, None]:
        """The team's jobs, newest first."""
        return self._api.listed(
            JobPage,
            "/v1/jobs",
            "cursor",
            lambda page: (map(self._job, page.jobs), page.next_cursor),
            params={"state": state},
        )


class Client(ClientCalls[Job], Blocking):
    __doc__ = ClientCalls.__doc__

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_seconds: float = 60,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._driver = Driver(httpx.Client(transport=transport, **self._open(url, key, timeout_seconds, max_retries)))

    def _job(self, view: JobView) -> Job:
        return Job(self._driver, self._api, self._transfers, view)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._driver.close()
        self._transfers.close()


class AsyncClient(ClientCalls[AsyncJob], Awaited):
    """`Client` for an event loop: the same calls, each awaited. Files and the store are served by threads."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_seconds: float = 60,
        max_retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        given = self._open(url, key, timeout_seconds, max_retries)
        self._driver = AsyncDriver(httpx.AsyncClient(transport=transport, **given))

    def _job(self, view: JobView) -> AsyncJob:
        return AsyncJob(self._driver, self._api, self._transfers, view)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._driver.close()
        self._transfers.close()
