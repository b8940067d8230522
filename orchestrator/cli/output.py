"""How commands speak: tables for people, JSON for scripts, and exit statuses for both."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.client import ClientError
from orchestrator.domain.errors import DomainError
from orchestrator.schemas import finding_message

_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
OK, ERROR, USAGE, SOME_FAILED = 0, 1, 2, 3  # exit statuses

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str) -> typer.Exit:
    """Print an error; raise what this returns."""
    print(f"janus: {printable_lines(message)}", file=sys.stderr)
    return typer.Exit(ERROR)


def note(message: str) -> None:
    """Something for the person at the terminal; output stays clean."""
    print(printable_lines(message), file=sys.stderr, flush=True)


@contextmanager
def told_errors() -> Iterator[None]:
    """The client's errors, and those of files, as a sentence and exit status 1."""
    try:
        yield
    except (ClientError, DomainError, OSError) as error:
        raise fail(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise fail(f"{'.'.join(str(part) for part in first['loc'])}: {finding_message(first)}") from None
    except KeyboardInterrupt:
        raise fail("interrupted; what was submitted goes on, see `janus jobs list`") from None


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(_plain(value), ensure_ascii=False, indent=2))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table, or tab-separated lines where nobody looks."""
    if not sys.stdout.isatty():
        print("\t".join(headers))
        for row in rows:
            print("\t".join(printable(str(cell)) for cell in row))
        return
    table = Table(*headers)
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console().print(table)


def printable(text: str) -> str:
    """Text of somebody else's, harmless to a terminal: control and direction characters are spelled out."""
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" or c in _DIRECTION else c for c in text)


def local_time(moment: datetime | None, otherwise: str = "") -> str:
    """A moment by the clock of this machine, with its zone."""
    return otherwise if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"


def show(value: Any, *, as_json: bool, otherwise: Callable[[], None]) -> None:
    """JSON where it is asked for, else what `otherwise` prints."""
    if as_json:
        print_json(value)
    else:
        otherwise()


def printable_lines(message: str) -> str:
    """The same of several lines."""
    return "\n".join(printable(line) for line in message.split("\n"))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
