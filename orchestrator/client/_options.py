"""Options and requests, checked before anything is sent."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.client._errors import InvalidOption
from orchestrator.domain.errors import DomainError
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions, JobKind, check_option_types
from orchestrator.schemas import finding_message

R = TypeVar("R", bound=BaseModel)


def check_options(kind: JobKind, values: dict[str, Any]) -> CaptionOptions | GenerateOptions:
    """The options of a job to be. Raises InvalidOption."""
    options = CaptionOptions if kind is JobKind.caption else GenerateOptions
    known = [field.name for field in fields(options)]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InvalidOption(f"there is no option {unknown[0]!r} of a {kind} job; it has {', '.join(known)}")
    try:
        check_option_types(kind, values)
        return options(**values)
    except DomainError as error:
        raise InvalidOption(str(error)) from error
    except (TypeError, AttributeError) as error:
        raise InvalidOption(f"an option is not of its type ({error}): {values}") from error


def build_request(shape: type[R], **values: Any) -> R:
    """A request of its wire shape. Raises InvalidOption, naming the field."""
    try:
        return shape(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidOption(f"{where}: {finding_message(first)} (given: {first['input']!r})") from error
