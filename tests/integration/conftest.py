"""Fixtures of the tests that need a database."""

from tests.database import environment, sessions, settings, store

__all__ = ["environment", "sessions", "settings", "store"]
