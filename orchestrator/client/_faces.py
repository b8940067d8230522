"""Two faces of one call: a method that is written once as steps blocks on `Client` and is awaited on `AsyncClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from orchestrator.client._steps import AsyncDriver, Driver, Steps, Stream

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Blocking:
    """Base of what does its calls at once."""

    _driver: Driver


class Awaited:
    """Base of what is awaited."""

    _driver: AsyncDriver


class Call(Generic[P, R]):
    """Decorates a method that returns steps: it answers R, or a coroutine of it."""

    def __init__(self, build: Callable[Concatenate[Any, P], Steps[R]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    def steps(self, instance: object, *args: P.args, **kwargs: P.kwargs) -> Steps[R]:
        """The call as steps, for another call that is made of it: `yield from JobCalls.wait.steps(job)`."""
        return self._build(instance, *args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: Awaited, owner: type) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Blocking | Awaited | None, owner: type) -> Any:
        if instance is None:
            return self

        @wraps(self._build.__get__(instance))
        def ask(*args: P.args, **kwargs: P.kwargs) -> Any:
            return instance._driver.run(self._build(instance, *args, **kwargs))

        return ask


class Listing(Generic[P, T]):
    """Decorates a method that returns a stream: an iterator of T, or an asynchronous one."""

    def __init__(self, build: Callable[Concatenate[Any, P], Stream[T, Any]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Blocking, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Awaited, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Blocking | Awaited | None, owner: type) -> Any:
        if instance is None:
            return self

        @wraps(self._build.__get__(instance))
        def iterate(*args: P.args, **kwargs: P.kwargs) -> Any:
            return instance._driver.iterate(self._build(instance, *args, **kwargs))

        return iterate
