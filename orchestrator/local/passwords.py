"""Passwords of the local servers: made once, kept in one file that only its owner can read."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.local.errors import LocalError
from orchestrator.local.files import read_json, write_json


@dataclass(frozen=True)
class Passwords:
    """Letters, digits, `-` and `_` only, so that they can stand in a URL as they are."""

    postgres: str
    valkey: str
    s3_access_key: str
    s3_secret_key: str
    s3_admin: str

    def __repr__(self) -> str:
        return "Passwords(...)"


def get_passwords(home: Path) -> Passwords:
    """The passwords of this folder, made when it has none.

    Raises:
        LocalError: the file is there but not whole; new passwords would not open the old data.
    """
    path = home / "secrets.json"
    if not path.exists():
        made = Passwords(
            postgres=secrets.token_urlsafe(24),
            valkey=secrets.token_urlsafe(24),
            s3_access_key=f"janus{secrets.token_hex(8)}",
            s3_secret_key=secrets.token_urlsafe(30),
            s3_admin=secrets.token_urlsafe(24),
        )
        write_json(path, asdict(made))
    try:
        return Passwords(**read_json(path))
    except TypeError:
        raise LocalError(
            f"{path} is damaged: it must hold {', '.join(Passwords.__dataclass_fields__)}. Put it back from a backup, "
            f"or move {home} away to start with empty servers."
        ) from None
