"""Whose fault, and worth another attempt? The item's: a failure with a code. The world's: the shard goes back."""

from __future__ import annotations

from psycopg import OperationalError as PsycopgOperationalError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from orchestrator.artifacts.base import StoreRefused, StoreUnavailable
from orchestrator.domain.failures import Failure
from workers.errors import BadInput, DecoderUnavailable

PATIENCE_WITH_REFUSALS = 4

# Faults of the world: Postgres or the store is away or overloaded, or this machine is. No item is to blame.
WORLD_FAULTS = (
    StoreUnavailable,
    OperationalError,
    InterfaceError,
    PoolTimeout,
    PsycopgOperationalError,
    DecoderUnavailable,
)


def failure_of(error: BaseException, *, place: str, attempt: int, was_released: int = 0) -> Failure | None:
    """The failure that an exception means for its item, or None where the item is not to blame.

    Args:
        was_released: how often the shard was given back before. A store that refuses may be set up wrongly, which
            somebody will mend; one that still refuses after that has something against this object.
    """
    if isinstance(error, StoreRefused) and was_released >= PATIENCE_WITH_REFUSALS:
        return Failure("image_refused", f"{place}: {error}", attempt)
    if isinstance(error, WORLD_FAULTS):
        return None
    if isinstance(error, BadInput):
        return Failure(error.code, str(error), attempt)
    message = f"{place}: the engine raised {type(error).__name__}: {error}"
    return Failure("engine_error", message[:2000], attempt)
