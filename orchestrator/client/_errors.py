"""Errors of the client.

ClientError
├── ConnectionFailed        the server did not answer, after all retries
├── ServerError             the server answered with a problem document
│   ├── AuthenticationFailed   401: no key, or not a valid one
│   ├── PermissionDenied       403: the key's scopes do not cover this
│   ├── NotFound               404: no such thing, or another team's
│   ├── Conflict               409: the thing is in a state that does not allow this
│   ├── InvalidRequest         400, 413, 422: the request is not of its form
│   ├── RateLimited            429: too many requests; `retry_after_seconds` says when to ask again
│   └── ServerFault            5xx: the server cannot serve anybody, or has a fault of its own
├── TransferFailed          an object could not be uploaded or downloaded
├── JobNotEnded             wait() reached its timeout; the job goes on
├── NoResult                an item has no result, or none yet
├── BadSource               what was to be submitted cannot be read
│   └── NothingToSubmit        there are no items, or each has its result already
├── BadOutput               results cannot be written there, or not in this form
├── PackageMissing          an output needs a package that is not installed
└── InvalidOption           an option that there is not, or out of its range; a ValueError too
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Base of every error that the client raises on purpose."""


class ConnectionFailed(ClientError):
    """`request_id` is what the last try was sent with: the server's log has it where it arrived."""

    def __init__(self, message: str, request_id: str = "unknown") -> None:
        super().__init__(message)
        self.request_id = request_id


class ServerError(ClientError):
    """The server said no.

    `status`, `code` for programs, `detail` for people, `request_id` for its operator, and `retry_after_seconds` where
    the server said when to ask again.
    """

    def __init__(self, status: int, problem: dict[str, Any], retry_after_seconds: float | None = None) -> None:
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail", f"the server answered {status}"))
        self.request_id = str(problem.get("request_id", "unknown"))
        super().__init__(f"{self.detail} ({status} {self.code}, request {self.request_id})")


class AuthenticationFailed(ServerError):
    pass


class PermissionDenied(ServerError):
    pass


class NotFound(ServerError):
    pass


class Conflict(ServerError):
    pass


class InvalidRequest(ServerError):
    pass


class RateLimited(ServerError):
    pass


class ServerFault(ServerError):
    pass


class TransferFailed(ClientError):
    """`status` is what the store answered, None where it did not."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class JobNotEnded(ClientError):
    pass


class NoResult(ClientError):
    pass


class BadSource(ClientError):
    pass


class NothingToSubmit(BadSource):
    """`done_already` says that there were items, and that each has its result."""

    def __init__(self, message: str, *, done_already: bool = False) -> None:
        super().__init__(message)
        self.done_already = done_already


class BadOutput(ClientError):
    pass


class PackageMissing(ClientError):
    pass


class InvalidOption(ClientError, ValueError):
    pass


_BY_STATUS: dict[int, type[ServerError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
}


def error_for(status: int, problem: dict[str, Any], retry_after_seconds: float | None = None) -> ServerError:
    """The error class of an HTTP status."""
    other = ServerFault if status >= 500 else ServerError
    return _BY_STATUS.get(status, other)(status, problem, retry_after_seconds)
