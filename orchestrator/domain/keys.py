"""A team's secret: made once, shown once, kept only as a hash.

Form: `jns_live_<id>_<secret><crc>`. The id finds the row, the secret (256 random bits) proves it, and six base-62
digits of CRC-32 let a scanner tell a real key from a look-alike without asking us. A fast hash is right here: a random
256-bit secret cannot be guessed, so a slow password hash would only slow us.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from dataclasses import dataclass

PREFIX = "jns_live_"
SCOPES = ("jobs:read", "jobs:write", "admin")
_ALPHABET = string.digits + string.ascii_letters
_SECRET_LENGTH = 43  # 62**43 is just above 2**256
_ID_LENGTH = 12


@dataclass(frozen=True)
class NewKey:
    """A key as it is handed out, once."""

    id: str
    text: str
    secret_sha256: str


def new_key() -> NewKey:
    """Make a key from the system's random source."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    body = f"{PREFIX}{key_id}_{secret}"
    return NewKey(key_id, body + _checksum(body), hash_secret(secret))


def parse_key(text: str) -> tuple[str, str] | None:
    """(id, secret) of a well-formed key, or None: wrong prefix, length or checksum."""
    if (
        not text.isascii()
        or len(text) != len(PREFIX) + _ID_LENGTH + 1 + _SECRET_LENGTH + 6
        or not text.startswith(PREFIX)
    ):
        return None
    body, checksum = text[:-6], text[-6:]
    key_id, separator, secret = body[len(PREFIX) :].partition("_")
    if separator != "_" or len(key_id) != _ID_LENGTH or not hmac.compare_digest(_checksum(body), checksum):
        return None
    return key_id, secret


def hash_secret(secret: str) -> str:
    """What the database keeps: SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_matches(secret: str, secret_sha256: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(hash_secret(secret), secret_sha256)


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode("utf-8", "replace")), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _ALPHABET[digit] + digits
    return digits
