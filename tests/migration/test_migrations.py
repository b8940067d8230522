"""The migrations lead from nothing to exactly the tables that the code knows, and back."""

from __future__ import annotations

from importlib.resources import files

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect

from orchestrator.admin import migrate
from orchestrator.db.tables import Table
from orchestrator.settings import Settings

pytestmark = pytest.mark.services


def test_from_empty_to_head_is_what_the_tables_say(settings: Settings) -> None:
    migrate(settings)
    migrate(settings)  # again changes nothing
    engine = create_engine(settings.database_url.get_secret_value())
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_every_migration_can_be_undone(settings: Settings) -> None:
    migrate(settings)
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.attributes["database_url"] = settings.database_url.get_secret_value()
    command.downgrade(config, "base")
    engine = create_engine(settings.database_url.get_secret_value())
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    engine.dispose()
    migrate(settings)
