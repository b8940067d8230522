"""Teams and their keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orchestrator.db.tables import KeyRow, TeamRow
from orchestrator.domain.errors import Conflict, InvalidRequest, NotFound
from orchestrator.domain.ids import new_id
from orchestrator.domain.keys import SCOPES, NewKey, new_key, parse_key, secret_matches

MAX_KEY_DAYS = 36_500


@dataclass(frozen=True)
class Caller:
    """Who asks: the team of a valid key, and what the key may do. team_name: for those who look at pages."""

    team_id: str
    key_id: str
    scopes: frozenset[str]
    team_name: str = ""


def create_team(session: Session, name: str) -> TeamRow:
    """Raises Conflict where the name is taken."""
    team = TeamRow(id=new_id("team"), name=name)
    try:
        with session.begin_nested():
            session.add(team)
    except IntegrityError:
        raise Conflict(f"there is a team {name!r} already") from None
    session.refresh(team)
    return team


def find_team(session: Session, name_or_id: str) -> TeamRow | None:
    return session.scalars(select(TeamRow).where(or_(TeamRow.id == name_or_id, TeamRow.name == name_or_id))).first()


def get_team(session: Session, name_or_id: str) -> TeamRow:
    team = find_team(session, name_or_id)
    if team is None:
        raise NotFound(f"there is no team {name_or_id!r}; see `janus teams list`")
    return team


def list_teams(session: Session) -> Sequence[TeamRow]:
    return session.scalars(select(TeamRow).order_by(TeamRow.name)).all()


def set_weight(session: Session, team_id: str, weight: int) -> TeamRow:
    """From the dispatcher's next round on. Raises NotFound."""
    team = get_team(session, team_id)
    team.weight = weight
    session.flush()
    return team


def create_key(
    session: Session, team_id: str, *, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[KeyRow, NewKey]:
    """Make a key; its text is in the second value and nowhere else, ever again. Raises InvalidRequest."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InvalidRequest(f"unknown scope {', '.join(unknown) or '(none)'}; there are {', '.join(SCOPES)}")
    if expires_at is not None and not 0 < _days_until(expires_at) <= MAX_KEY_DAYS:
        raise InvalidRequest(
            f"expires_at is {expires_at.isoformat()}; it must be in the future, and within {MAX_KEY_DAYS} days"
        )
    key = new_key()
    row = KeyRow(
        id=key.id,
        team_id=team_id,
        name=name,
        secret_sha256=key.secret_sha256,
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, key


def _days_until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)) / timedelta(days=1)


def rotate_key(session: Session, key_id: str, *, overlap_days: int) -> tuple[KeyRow, NewKey]:
    """A new key like a live one, which goes on working for `overlap_days`, or until its own end if that is sooner.

    The new key lives as long as the old one was made for. Raises NotFound, and Conflict where the old one was given
    its end by a rotation already.
    """
    old = session.scalars(select(KeyRow).where(KeyRow.id == key_id, _is_live()).with_for_update()).first()
    if old is None:
        raise NotFound(f"there is no live key {key_id!r}")
    if old.rotated_at is not None:
        raise Conflict(f"{key_id} was rotated at {old.rotated_at:%Y-%m-%d %H:%M} UTC; rotate the key that replaced it")
    now = datetime.now(UTC)
    expires_at = None if old.expires_at is None else now + (old.expires_at - old.created_at)
    made = create_key(session, old.team_id, name=old.name, scopes=old.scopes, expires_at=expires_at)
    ends_at = now + timedelta(days=overlap_days)
    old.expires_at = ends_at if old.expires_at is None else min(old.expires_at, ends_at)
    old.rotated_at = now
    session.flush()
    return made


def list_keys(session: Session, team_id: str | None) -> Sequence[KeyRow]:
    statement = select(KeyRow).order_by(KeyRow.created_at)
    return session.scalars(statement if team_id is None else statement.where(KeyRow.team_id == team_id)).all()


def revoke_key(session: Session, key_id: str) -> None:
    """Takes effect with the commit: the next request with this key gets 401."""
    statement = update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)).values(revoked_at=func.now())
    if session.execute(statement.returning(KeyRow.id)).first() is None:
        raise NotFound(f"there is no live key {key_id!r}")


def find_caller(session: Session, key_text: str) -> Caller | None:
    """Who holds this key, or None: malformed, unknown, revoked or expired, all alike to the asker."""
    parsed = parse_key(key_text)
    if parsed is None:
        return None
    key_id, secret = parsed
    stale = KeyRow.last_used_at.is_(None) | (KeyRow.last_used_at < func.now() - text("interval '1 minute'"))
    found = session.execute(select(KeyRow, stale).where(KeyRow.id == key_id, _is_live())).first()
    if found is None or not secret_matches(secret, found[0].secret_sha256):
        return None
    row, used_long_ago = found
    if used_long_ago:
        _mark_used(session, key_id)
    return Caller(row.team_id, row.id, frozenset(row.scopes))


def find_live_key(session: Session, key_id: str) -> Caller | None:
    """Who holds the key of this id, for those who proved it before; None once it was revoked or has expired."""
    statement = select(KeyRow, TeamRow.name).join(TeamRow, TeamRow.id == KeyRow.team_id)
    found = session.execute(statement.where(KeyRow.id == key_id, _is_live())).first()
    return None if found is None else Caller(found[0].team_id, key_id, frozenset(found[0].scopes), found[1])


def _is_live() -> ColumnElement[bool]:
    return KeyRow.revoked_at.is_(None) & (KeyRow.expires_at.is_(None) | (KeyRow.expires_at > func.now()))


def _mark_used(session: Session, key_id: str) -> None:
    """Once a minute for each key. Where another request is at it, nobody waits."""
    free = select(KeyRow.id).where(KeyRow.id == key_id).with_for_update(skip_locked=True)
    session.execute(update(KeyRow).where(KeyRow.id.in_(free)).values(last_used_at=func.now()))
