"""What a page's form sends: read once, and believed only with the token of the session that the page was made for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData, UploadFile

from orchestrator.domain.errors import Forbidden, InvalidRequest

MAX_FILES = 1000


async def read_form(request: Request) -> FormData:
    """The form of a request. Raises Forbidden where its token is not the session's."""
    limit = request.app.state.services.settings.max_request_bytes
    form = await request.form(max_files=MAX_FILES, max_fields=2 * MAX_FILES, max_part_size=limit)
    session = request.state.session
    if session is None or not session.accepts(text_of(form, "form_token")):
        raise Forbidden("This page was too old to act on. Go back, load it again, and repeat what you did.")
    return form


Form = Annotated[FormData, Depends(read_form)]


def text_of(form: FormData, name: str) -> str:
    """A field's text without spaces around it; empty where it is missing."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def files_of(form: FormData, name: str) -> list[UploadFile]:
    """The files of a field, without the empty one that a browser sends for none."""
    return [value for value in form.getlist(name) if isinstance(value, UploadFile) and value.filename]


def number_of(form: FormData, name: str, kind: str) -> int | float | None:
    """A field's number, `whole` or any `number`; None where it is empty. Raises InvalidRequest."""
    text = text_of(form, name)
    if not text:
        return None
    try:
        return int(text) if kind == "whole" else float(text)
    except ValueError:
        raise InvalidRequest(
            f"{name.replace('_', ' ')} is {text[:40]!r}; it must be a {'whole ' if kind == 'whole' else ''}number"
        ) from None


def go_to(path: str) -> RedirectResponse:
    """After a form did its work: the page to show, so that loading that again does nothing twice."""
    return RedirectResponse(path, 303)
