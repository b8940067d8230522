"""Logs: one JSON object a line on standard error, with the same field names everywhere.

Fields are bound where a piece of work begins, and every line under it has them: `process` and `worker` for a whole
process, `request_id` for a request, `duty` for a dispatcher's thread, `job`, `team`, `shard` and `attempt` for a shard.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, get_contextvars

Logger = Any  # structlog's bound logger; its own type is a protocol without our methods

HIDDEN = "***"
_SECRETS = (
    re.compile(r"(jns_live_[0-9A-Za-z]{12}_)[0-9A-Za-z]+"),  # a key; its id stays, which is no secret
    re.compile(r"((?i:signature)(?:=|%3D))[0-9A-Za-z%+/=]{16,}"),  # of a signed link, or of a request to the store
    re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+(?=@)"),  # a password in a URL
)
_process: dict[str, Any] = {}


def configure_logging(level: str = "info", *, hidden: Iterable[str] = (), **process: Any) -> None:
    """Our events and the libraries' log records alike, as JSON lines; keys, signatures and passwords are left out.

    Args:
        hidden: texts that must not be seen, such as this process's passwords.
        process: fields of every line.
    """
    name_process(**process)
    texts = sorted(hidden, key=len, reverse=True)  # a URL before the password in it
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
                lambda _logger, _method, line: without_secrets(str(line), texts),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in ("httpx", "celery", "kombu"):
        logging.getLogger(library).setLevel("WARNING")


def without_secrets(line: str, hidden: Iterable[str] = ()) -> str:
    """A rendered line, tracebacks and all, without what would open a door."""
    for text in hidden:
        line = line.replace(text, HIDDEN)
    for pattern in _SECRETS:
        line = pattern.sub(rf"\1{HIDDEN}", line)
    return line


def get_logger(**fields: Any) -> Logger:
    """A logger that carries these fields on every line."""
    return structlog.get_logger(**fields)


def name_process(**fields: Any) -> None:
    """Fields of every line that this process writes from now on."""
    _process.update(fields)


def bind(**fields: Any) -> None:
    """Fields of every line that this thread or task writes from now on."""
    bind_contextvars(**fields)


def bound(**fields: Any) -> AbstractContextManager[None]:
    """Fields of every line that this thread writes in the block."""
    return bound_contextvars(**fields)


def carried() -> Callable[[], object]:
    """Called in another thread, binds there what is bound here now."""
    return partial(bind_contextvars, **get_contextvars())


def _add_process(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**_process, **event}
