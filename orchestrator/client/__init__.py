"""The Python client: `Client` and `AsyncClient`, jobs, outputs, errors. It imports no torch, no pandas, no database."""

from __future__ import annotations

from orchestrator.client._client import AsyncClient, Client
from orchestrator.client._errors import (
    AuthenticationFailed,
    BadOutput,
    BadSource,
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidOption,
    InvalidRequest,
    JobNotEnded,
    NoResult,
    NotFound,
    NothingToSubmit,
    PackageMissing,
    PermissionDenied,
    RateLimited,
    ServerError,
    ServerFault,
    TransferFailed,
)
from orchestrator.client._job import AsyncJob, Job
from orchestrator.client._lines import FailureRecord, ImageRecord, ResultLine
from orchestrator.client._options import check_options
from orchestrator.client._outputs import Existing, Form, Output, Sidecar
from orchestrator.client._progress import describe, describe_rate, format_seconds
from orchestrator.client._replays import Replay
from orchestrator.client._retries import MAX_SILENCE_SECONDS
from orchestrator.client._roundtrip import RoundTrip
from orchestrator.client._verify import Verification

__all__ = [
    "MAX_SILENCE_SECONDS",
    "AsyncClient",
    "AsyncJob",
    "AuthenticationFailed",
    "BadOutput",
    "BadSource",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionFailed",
    "Existing",
    "FailureRecord",
    "Form",
    "ImageRecord",
    "InvalidOption",
    "InvalidRequest",
    "Job",
    "JobNotEnded",
    "NoResult",
    "NotFound",
    "NothingToSubmit",
    "Output",
    "PackageMissing",
    "PermissionDenied",
    "RateLimited",
    "Replay",
    "ResultLine",
    "RoundTrip",
    "ServerError",
    "ServerFault",
    "Sidecar",
    "TransferFailed",
    "Verification",
    "check_options",
    "describe",
    "describe_rate",
    "format_seconds",
]
