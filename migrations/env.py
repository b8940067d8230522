"""Runs migrations: one at a time over all processes, and never behind a lock that it would wait for long."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

from orchestrator.db.tables import Table

LOCK_TIMEOUT = "5s"  # a migration that cannot get its lock gives way to the traffic
STATEMENT_TIMEOUT = "15min"
ONE_AT_A_TIME = 7_350_211  # any number that nobody else locks


def run() -> None:
    """Bring the database of `attributes["database_url"]` to the revision asked for."""
    engine = create_engine(context.config.attributes["database_url"])
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": ONE_AT_A_TIME})
        connection.commit()
        context.configure(connection=connection, target_metadata=Table.metadata, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
    engine.dispose()


run()
