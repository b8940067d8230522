"""Which migrations this program knows, and where a database stands among them."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files

from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.orm import Session

MIGRATE = "run `python -m orchestrator.admin migrate`"


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, ...]:
    """Every migration that comes with this program, the newest first."""
    with as_file(files("migrations")) as folder:
        return tuple(script.revision for script in ScriptDirectory(str(folder)).walk_revisions())


def find_revision(session: Session) -> str | None:
    """The database's own; None where it was never migrated, or all of it was undone."""
    if session.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found: str | None = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def migrations_behind(found: str | None) -> int:
    """How many of the known migrations a database at this one lacks; 0 where it is newer than this program."""
    known = known_revisions()
    if found is None:
        return len(known)
    return known.index(found) if found in known else 0


def is_ahead(found: str | None) -> bool:
    """Whether a database at this migration has one that this program does not know."""
    return found is not None and found not in known_revisions()
