"""No query that runs often reads all of a table that grows with what is done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.large_state import Size, fill
from docs.write_query_plans import Explainer, Query, queries, sequential_scans
from orchestrator.admin import migrate
from orchestrator.db.session import connect, session_factory
from orchestrator.settings import Settings

GROWING = {"shards", "events", "failures"}  # `jobs` is small enough here to be read whole
SIZE = Size(jobs=1000, shards=40_000)


@pytest.fixture
def explained(settings: Settings) -> Iterator[list[tuple[Query, set[str]]]]:
    """Each query of the page, and the tables that some statement of it reads whole."""
    migrate(settings)
    engine = connect(settings.database_url.get_secret_value(), statement_timeout_seconds=120)
    try:
        with engine.connect() as connection:
            fill(connection, SIZE)
        with session_factory(engine)() as session:
            known = queries(session)
        explainer = Explainer(engine, rounds=1)
        yield [(query, set().union(*map(sequential_scans, explainer.explain(query)))) for query in known]
    finally:
        engine.dispose()


def test_no_frequent_query_reads_all_of_a_table_that_grows(explained: list[tuple[Query, set[str]]]) -> None:
    assert len(explained) > 30
    assert not {f"{query.name} reads all of {table}" for query, tables in explained for table in tables & GROWING}
