"""The Python client: `Client`, its jobs and its errors. It imports no torch, no database, no web framework."""

from __future__ import annotations

from orchestrator.client._client import Client
from orchestrator.client._downloads import check_out
from orchestrator.client._errors import (
    AuthenticationFailed,
    BadSource,
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidOption,
    InvalidRequest,
    JobNotEnded,
    NotFound,
    PermissionDenied,
    ServerError,
    TransferFailed,
)
from orchestrator.client._job import Job
from orchestrator.client._options import check_options
from orchestrator.client._progress import describe, describe_rate, format_seconds
from orchestrator.client._verify import Verification

__all__ = [
    "AuthenticationFailed",
    "BadSource",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "InvalidOption",
    "InvalidRequest",
    "Job",
    "JobNotEnded",
    "NotFound",
    "PermissionDenied",
    "ServerError",
    "TransferFailed",
    "Verification",
    "check_options",
    "check_out",
    "describe",
    "describe_rate",
    "format_seconds",
]
