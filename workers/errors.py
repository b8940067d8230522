"""What goes wrong in a worker.

WorkerError
├── BadInput             this item cannot be served; it becomes a failure and the rest of the shard goes on
└── DecoderUnavailable   no decoder process starts: the machine's fault, worth another attempt
"""

from __future__ import annotations

from orchestrator.domain.failures import FAILURE_CODES


class WorkerError(Exception):
    """Base of the worker's own errors."""


class BadInput(WorkerError):
    """This item cannot be served."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        if code not in FAILURE_CODES:
            raise ValueError(f"{code!r} is not a failure code")
        self.code = code


class DecoderUnavailable(WorkerError):
    """No decoder process starts."""
