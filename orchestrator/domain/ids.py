"""Names for rows: a short kind, an underscore, and 100 random bits in lower-case base 32."""

from __future__ import annotations

import base64
import secrets


def new_id(kind: str) -> str:
    """A fresh id, such as `job_h3k…`; `kind` is `job`, `team`, `upl` or `key`."""
    return f"{kind}_{base64.b32encode(secrets.token_bytes(15)).decode().lower()[:20]}"
