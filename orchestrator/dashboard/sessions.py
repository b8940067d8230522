"""The cookie of who has signed in: signed, for twelve hours, with the key's id and never the key.

The signature's secret is made from the store's, which every API process has and no client; the same secret signs the
links to objects. Nothing is remembered here: each request asks Postgres whether the key is still live.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from orchestrator.settings import Settings

COOKIE = "janus_session"
MAX_AGE_SECONDS = 12 * 3600
SIGN_IN_SECONDS = 3600  # to fill in the form


@dataclass(frozen=True)
class Session:
    """Of a browser; without a key before somebody has signed in."""

    key_id: str
    form_token: str  # stands in every form of the session's pages

    def accepts(self, form_token: str) -> bool:
        return hmac.compare_digest(form_token.encode(), self.form_token.encode())


def new_session(key_id: str = "") -> Session:
    return Session(key_id, secrets.token_urlsafe(24))


def signer(settings: Settings, purpose: str) -> URLSafeTimedSerializer:
    """Signs for one purpose; what was signed for another is refused."""
    secret = hmac.new(settings.s3_secret_key.get_secret_value().encode(), b"janus dashboard", hashlib.sha256)
    signing = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(secret.hexdigest(), salt=purpose, signer_kwargs=signing)


def read_session(request: Request, settings: Settings) -> Session | None:
    """The session of the request's cookie; None where there is none, or not one of ours, or it is too old."""
    try:
        value = signer(settings, "session").loads(request.cookies.get(COOKIE, ""), max_age=MAX_AGE_SECONDS)
        return Session(str(value["key"]), str(value["form"]))
    except (BadSignature, KeyError, TypeError):
        return None


def write_session(request: Request, response: Response, session: Session, settings: Settings) -> None:
    response.set_cookie(
        COOKIE,
        signer(settings, "session").dumps({"key": session.key_id, "form": session.form_token}),
        max_age=MAX_AGE_SECONDS if session.key_id else SIGN_IN_SECONDS,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def forget_session(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
