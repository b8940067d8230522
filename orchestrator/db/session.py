"""Connections to Postgres: one engine a process, short transactions, no statement that waits for ever."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from orchestrator.db.ownership import add_owner

SessionFactory = sessionmaker[Session]


def connect(
    database_url: str, *, pool_size: int = 5, statement_timeout_seconds: int = 30, name: str = "janus"
) -> Engine:
    """An engine that checks a connection before it lends it, so that a restarted Postgres costs one retry.

    Args:
        name: what Postgres calls its connections; by the dispatcher's, others see that it lives.
    """
    return create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=30,
        connect_args={
            "application_name": name,
            "connect_timeout": 10,
            # A database that vanished without a word is noticed in half a minute, not in the kernel's two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "options": f"-c statement_timeout={statement_timeout_seconds * 1000} -c timezone=UTC",
        },
    )


def session_factory(engine: Engine) -> SessionFactory:
    """Sessions that keep what they loaded after the commit, since rows leave the session as plain values."""
    factory = sessionmaker(engine, expire_on_commit=False)
    event.listen(factory, "do_orm_execute", add_owner)
    return factory


def database_now(session: Session) -> datetime:
    """The database's clock: the only one that leases know."""
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now


def try_lock(session: Session, name: str) -> bool:
    """Take a lock that lasts until the transaction ends; False where somebody else holds it."""
    statement = select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))
    return bool(session.scalars(statement).one())


def wait_for_lock(session: Session, name: str) -> None:
    """Take a lock that lasts until the transaction ends, as soon as nobody else holds it."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def ping(session: Session) -> None:
    """Raise unless Postgres answers."""
    session.execute(text("SELECT 1"))
