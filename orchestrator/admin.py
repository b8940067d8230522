"""What an operator does beside the API: bring the schema to head, make the first key, look for faults and orphans.

python -m orchestrator.admin migrate
python -m orchestrator.admin diagnose
python -m orchestrator.admin ensure-key --team NAME --scopes admin,jobs:read,jobs:write
python -m orchestrator.admin prune-audit --days 400
python -m orchestrator.admin collect --dry-run
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

from orchestrator.artifacts import open_store
from orchestrator.db import audit, teams
from orchestrator.db.session import SessionFactory, connect, database_now, session_factory
from orchestrator.diagnosis import Finding, diagnose
from orchestrator.dispatch.collector import Collector, Found
from orchestrator.domain.errors import JanusError
from orchestrator.settings import Settings, SettingsError, get_settings
from orchestrator.telemetry import configure_logging

PRUNED_AT_ONCE = 10_000  # rows of the audit in one transaction, whose statements have half a minute


def migrate(settings: Settings, revision: str = "head") -> None:
    """Bring the schema to `revision` and make the bucket. Running it again changes nothing."""
    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["database_url"] = settings.database_url.get_secret_value()
        command.upgrade(config, revision)
    with closing(open_store(settings)) as store:
        store.ensure_bucket()


def new_migration(settings: Settings, name: str) -> Path:
    """Write a migration from the tables' difference to the database (developers, in a checkout); its path."""
    folder = Path(__file__).resolve().parent.parent / "migrations"
    known = sorted((folder / "versions").glob("2*.py"))
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["database_url"] = settings.database_url.get_secret_value()
    command.revision(config, name.replace("_", " "), autogenerate=True, rev_id=f"{len(known) + 1:04d}")
    draft = next(path for path in (folder / "versions").glob(f"{len(known) + 1:04d}_*.py"))
    return draft.rename(draft.with_name(f"{datetime.now(UTC):%Y_%m_%d_%H%M}_{name}.py"))


def ensure_key(settings: Settings, *, team: str, name: str, scopes: list[str]) -> str:
    """Make the team where it is missing, and a new key for it; the key's text."""
    with _sessions(settings) as sessions, sessions.begin() as session:
        row = teams.find_team(session, team) or teams.create_team(session, team)
        made, key = teams.create_key(session, row.id, name=name, scopes=scopes)
        audit.record(session, "key.created", key.id, address=_here(), of_team=row.id, scopes=made.scopes)
        return key.text


def prune_audit(settings: Settings, *, days: int) -> int:
    """Forget audit rows of more than so many days ago; how many. That it was done is a row too."""
    with _sessions(settings) as sessions:
        pruned, some = 0, None
        while some != 0:
            with sessions.begin() as session:
                some = audit.prune(session, older_than_days=days, limit=PRUNED_AT_ONCE)
            pruned += some
        with sessions.begin() as session:
            audit.record(session, "audit.pruned", "audit", address=_here(), rows=pruned, older_than_days=days)
        return pruned


def collect(settings: Settings, *, dry_run: bool) -> Iterator[Found]:
    """Delete the objects that no row names, or only find them; pages of what was found, as a stream."""
    with _sessions(settings) as sessions, closing(open_store(settings)) as store:
        with sessions() as session:
            now = database_now(session)
        link_seconds = settings.presigned_url_seconds
        yield from Collector(sessions, store, presigned_url_seconds=link_seconds, dry_run=dry_run).pages(now)


def find_faults(settings: Settings) -> list[Finding]:
    """What `GET /v1/diagnosis` would say, for when the API cannot."""
    with _sessions(settings) as sessions, closing(open_store(settings)) as store:
        return diagnose(settings, sessions, store)


@contextmanager
def _sessions(settings: Settings) -> Iterator[SessionFactory]:
    engine = connect(settings.database_url.get_secret_value())
    try:
        yield session_factory(engine)
    finally:
        engine.dispose()


def _here() -> str:
    """Where an operator sits, for the audit: at this machine."""
    return f"host {socket.gethostname()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.admin", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    migrate_parser = commands.add_parser("migrate", help="bring the schema to head and make the bucket")
    migrate_parser.add_argument("--revision", default="head")
    migration = commands.add_parser("new-migration", help="for developers: write a migration from the tables")
    migration.add_argument("name", help="what it does, such as add_something")
    commands.add_parser("diagnose", help="print every check of the servers as JSON; ends with 1 where one is bad")
    key = commands.add_parser("ensure-key", help="make a team where it is missing and print a new key for it")
    key.add_argument("--team", required=True)
    key.add_argument("--name", default="made by an operator")
    key.add_argument("--scopes", default="jobs:read,jobs:write", help="comma-separated: jobs:read, jobs:write, admin")
    prune = commands.add_parser("prune-audit", help="forget audit rows that are old")
    prune.add_argument("--days", type=int, required=True, help=f"how old, {audit.MIN_DAYS} at least")
    collecting = commands.add_parser("collect", help="delete objects of the store that no row names; see lifecycle.md")
    collecting.add_argument("--dry-run", action="store_true", help="print their names and delete nothing")
    return parser


def _print_collected(pages: Iterator[Found], *, names: bool) -> None:
    """The objects' names where they are wanted, and a line of JSON that counts them."""
    objects = num_bytes = 0
    for found in pages:
        objects, num_bytes = objects + len(found.keys), num_bytes + found.num_bytes
        if names:
            sys.stdout.writelines(f"{key}\n" for key in found.keys)
    print(json.dumps({"objects": objects, "bytes": num_bytes, "deleted": not names}))  # noqa: T201


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        settings = get_settings()
        configure_logging(settings.log_level, hidden=settings.secret_texts(), process="admin")  # not on standard output
        if options.command == "migrate":
            migrate(settings, options.revision)
        elif options.command == "new-migration":
            print(new_migration(settings, options.name))  # noqa: T201
        elif options.command == "prune-audit":
            print(prune_audit(settings, days=options.days))  # noqa: T201
        elif options.command == "collect":
            _print_collected(collect(settings, dry_run=options.dry_run), names=options.dry_run)
        elif options.command == "diagnose":
            findings = find_faults(settings)
            print(json.dumps([asdict(finding) for finding in findings], indent=2))  # noqa: T201
            return 0 if all(finding.ok for finding in findings) else 1
        else:
            scopes = [scope.strip() for scope in options.scopes.split(",")]
            print(ensure_key(settings, team=options.team, name=options.name, scopes=scopes))  # noqa: T201
    except (SettingsError, JanusError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except OperationalError as error:
        print(f"Postgres did not do it: {error.orig}. Check JANUS_DATABASE_URL.", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
