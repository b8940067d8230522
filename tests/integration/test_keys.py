"""Keys in the database: who holds one, when it was last used, and that looking waits for nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from orchestrator.db import teams
from orchestrator.db.session import SessionFactory
from orchestrator.db.tables import KeyRow
from orchestrator.domain.errors import Conflict, InvalidRequest, NotFound
from orchestrator.domain.keys import NewKey

pytestmark = pytest.mark.services


@pytest.fixture
def key(sessions: SessionFactory) -> NewKey:
    return _key(sessions)


def _key(sessions: SessionFactory, expires_at: datetime | None = None) -> NewKey:
    with sessions.begin() as session:
        team = teams.find_team(session, "t") or teams.create_team(session, "t")
        return teams.create_key(session, team.id, name="n", scopes=["jobs:read"], expires_at=expires_at)[1]


def _use(sessions: SessionFactory, key: NewKey) -> datetime | None:
    """Ask who holds it, in a session that waits for no lock; when the key says that it was last used."""
    with sessions.begin() as session:
        session.execute(text("SET LOCAL lock_timeout = '1ms'"))
        caller = teams.find_caller(session, key.text)
        assert caller is not None
        assert caller.key_id == key.id
    with sessions() as session:
        return session.get_one(KeyRow, key.id).last_used_at


def test_last_use_is_written_once_a_minute_and_nobody_waits_for_it(sessions: SessionFactory, key: NewKey) -> None:
    with sessions.begin() as other:
        other.scalars(select(KeyRow).where(KeyRow.id == key.id).with_for_update()).one()
        assert _use(sessions, key) is None, "the row is busy: next time"
    first = _use(sessions, key)
    assert first is not None
    assert _use(sessions, key) == first
    with sessions.begin() as session:
        session.execute(update(KeyRow).values(last_used_at=first - timedelta(seconds=61)))
    again = _use(sessions, key)
    assert again is not None
    assert again >= first


def test_a_key_of_the_same_id_and_another_secret_is_nobodys(sessions: SessionFactory, key: NewKey) -> None:
    other = _key(sessions)
    with sessions.begin() as session:
        session.execute(update(KeyRow).where(KeyRow.id == key.id).values(secret_sha256=other.secret_sha256))
        assert teams.find_caller(session, key.text) is None
        assert teams.find_caller(session, other.text) is not None


def test_a_rotated_key_lives_as_long_as_the_old_one_was_made_for(sessions: SessionFactory) -> None:
    old = _key(sessions, datetime.now(UTC) + timedelta(days=30))
    with sessions.begin() as session:
        row, new = teams.rotate_key(session, old.id, overlap_days=2)
        assert row.expires_at is not None
        assert abs((row.expires_at - datetime.now(UTC)) / timedelta(days=1) - 30) < 0.1
        assert teams.find_caller(session, new.text) is not None
    with sessions() as session:
        ends_at = session.get_one(KeyRow, old.id).expires_at
        assert ends_at is not None
        assert abs((ends_at - datetime.now(UTC)) / timedelta(days=1) - 2) < 0.1
        with pytest.raises(Conflict):
            teams.rotate_key(session, old.id, overlap_days=90)
    soon = _key(sessions, datetime.now(UTC) + timedelta(hours=1))
    with sessions.begin() as session:
        teams.rotate_key(session, soon.id, overlap_days=90)
        ends_at = session.get_one(KeyRow, soon.id).expires_at
        assert ends_at is not None
        assert ends_at < datetime.now(UTC) + timedelta(hours=2), "a rotation never prolongs"


def test_what_ended_is_not_rotated_and_nothing_is_made_that_has_ended(sessions: SessionFactory, key: NewKey) -> None:
    with sessions.begin() as session:
        teams.revoke_key(session, key.id)
        with pytest.raises(NotFound):
            teams.rotate_key(session, key.id, overlap_days=1)
    for days in (-1, 36_501):
        with pytest.raises(InvalidRequest, match="in the future"):
            _key(sessions, datetime.now(UTC) + timedelta(days=days))
