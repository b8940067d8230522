"""Errors of the rules.

JanusError
└── DomainError            a rule said no
    ├── InvalidRequest     what was asked is not of its form
    ├── NotFound           there is no such thing, or it belongs to another team
    ├── Conflict           the thing is in a state that does not allow this
    └── Forbidden          the key's scopes do not cover this
"""

from __future__ import annotations


class JanusError(Exception):
    """Base of every error that this package raises on purpose."""


class DomainError(JanusError):
    """A rule said no; `code` is for programs, the message for people."""

    code = "domain_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidRequest(DomainError):
    code = "invalid_request"


class NotFound(DomainError):
    code = "not_found"


class Conflict(DomainError):
    code = "conflict"


class Forbidden(DomainError):
    code = "forbidden"
