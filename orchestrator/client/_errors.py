"""Errors of the client.

ClientError
├── ConnectionFailed        the server did not answer, after all retries
├── ServerError             the server answered with a problem document
│   ├── AuthenticationFailed   401: no key, or not a valid one
│   ├── PermissionDenied       403: the key's scopes do not cover this
│   ├── NotFound               404: no such thing, or another team's
│   ├── Conflict               409: the thing is in a state that does not allow this
│   └── InvalidRequest         413, 422: the request is not of its form
├── TransferFailed          an object could not be uploaded or downloaded
├── JobNotEnded             wait() reached its timeout; the job goes on
├── BadSource               what was to be submitted cannot be read
└── InvalidOption           an option that there is not, or out of its range; a ValueError too
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Base of every error that the client raises on purpose."""


class ConnectionFailed(ClientError):
    pass


class ServerError(ClientError):
    """The server said no: `status`, `code` for programs, `detail` for people, `request_id` for its operator."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
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


class TransferFailed(ClientError):
    """`status` is what the store answered, None where it did not."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class JobNotEnded(ClientError):
    pass


class BadSource(ClientError):
    pass


class InvalidOption(ClientError, ValueError):
    pass


_BY_STATUS: dict[int, type[ServerError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
}


def error_for(status: int, problem: dict[str, Any]) -> ServerError:
    """The error class of an HTTP status."""
    return _BY_STATUS.get(status, ServerError)(status, problem)
