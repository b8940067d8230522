"""A line of an OpenAI batch file: a request in that contract's words, to an item in ours, or the reason why not."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.domain.errors import InvalidRequest, JanusError
from orchestrator.domain.image_refs import MAX_IMAGES_PER_PROMPT
from orchestrator.domain.items import MAX_ID_LENGTH
from orchestrator.domain.jobs import (
    MAX_PROMPT_LENGTH,
    MAX_SEED,
    CaptionOptions,
    GenerateOptions,
    JobKind,
    Options,
    options_of_item,
)
from orchestrator.domain.names import clean_message, is_safe_name
from orchestrator.domain.openai_batches import ENDPOINTS
from orchestrator.domain.urls import is_url

IMAGE_MARK = "<image_placeholder>"
# Fields that change nothing in an answer of ours, and those whose usual values say what we do anyway.
_NOTES = {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "moderation"}
_USUAL: dict[JobKind, dict[str, tuple[Any, ...]]] = {
    JobKind.caption: {
        "n": (1,),
        "stream": (False,),
        "logprobs": (False,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "tools": ([],),
    },
    JobKind.generate: {
        "stream": (False,),
        "partial_images": (0,),
        "output_format": ("png",),
        "quality": ("auto", "standard"),
        "background": ("auto", "opaque"),
    },
}
_OWN = {  # their names, and what ours are called
    JobKind.caption: {
        "max_tokens": "max_tokens",
        "max_completion_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
    },
    JobKind.generate: {
        "n": "images",
        "guidance": "guidance",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "steps": "steps",
        "solver": "solver",
    },
}
_FIELDS = {
    JobKind.caption: {"model", "messages", "seed"},
    JobKind.generate: {"model", "prompt", "seed", "size", "response_format"},
}


class LineRefused(JanusError):
    """The line costs itself. `param` is the field; `custom_id` is None where the line has none that can be read."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.param = clean_message(message), code, param
        self.custom_id: str | None = None


@dataclass(frozen=True)
class Line:
    """A request that can become an item.

    images: names below the batch's upload, URLs, and the bytes of those that came inside the line.
    size: width and height asked for, None where any will do.
    """

    custom_id: str
    model: str
    prompt: str | None
    seed: int | None
    options: dict[str, Any]
    images: tuple[str | bytes, ...] = ()
    size: tuple[int, int] | None = None
    as_link: bool = False

    @property
    def num_seeds(self) -> int:
        """How many seeds its answers take."""
        images: int = self.options.get("images", 1)
        return images


def read_line(raw: bytes, *, endpoint: str, has_upload: bool, max_line_bytes: int, max_image_bytes: int) -> Line:
    """Raises LineRefused.

    Args:
        raw: at most one byte more than `max_line_bytes`.
        has_upload: whether images may be named by where they lie in an upload.
    """
    if len(raw) > max_line_bytes:
        raise LineRefused(
            f"the line is longer than {max_line_bytes} bytes (JANUS_MAX_OPENAI_LINE_BYTES)", code="line_too_long"
        )
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise LineRefused(f"the line is not JSON ({error})", code="invalid_json_line") from None
    if not isinstance(record, dict):
        raise LineRefused("the line is not a JSON object", code="invalid_json_line")
    custom_id = record.get("custom_id")
    try:
        _check_envelope(record, endpoint)
        body: dict[str, Any] = {name: value for name, value in record["body"].items() if value is not None}
        kind = ENDPOINTS[endpoint]
        _check_fields(body, kind)
        if kind is JobKind.caption:
            return _caption(record["custom_id"], body, has_upload=has_upload, max_image_bytes=max_image_bytes)
        return _drawing(record["custom_id"], body)
    except LineRefused as refused:
        refused.custom_id = clean_message(custom_id)[:MAX_ID_LENGTH] if isinstance(custom_id, str) else None
        raise


def _check_envelope(record: Mapping[str, Any], endpoint: str) -> None:
    custom_id, method, url = record.get("custom_id"), record.get("method"), record.get("url")
    if (
        not isinstance(custom_id, str)
        or not 0 < len(custom_id) <= MAX_ID_LENGTH
        or clean_message(custom_id) != custom_id
    ):
        message = f"custom_id must be text of 1 to {MAX_ID_LENGTH} characters"
        raise LineRefused(message, code="invalid_custom_id", param="custom_id")
    if method != "POST":
        raise LineRefused("method must be 'POST'", code="invalid_method", param="method")
    if url != endpoint:
        raise LineRefused(f"url must be that of the batch, {endpoint!r}", code="mismatched_endpoint", param="url")
    if not isinstance(record.get("body"), dict):
        raise LineRefused("body must be an object: the request", code="missing_required_parameter", param="body")


def _check_fields(body: Mapping[str, Any], kind: JobKind) -> None:
    usual, known = _USUAL[kind], _FIELDS[kind] | _OWN[kind].keys() | _NOTES
    for name, value in body.items():
        if name in usual and name not in known:
            if value not in usual[name]:
                raise _refused(
                    f"body.{name}", f"is not supported with this value; leave it out or give {usual[name][0]!r}"
                )
        elif name not in known:
            raise LineRefused(
                f"body.{name[:100]} is not known here; known are {', '.join(sorted(known | usual.keys()))}",
                code="unknown_parameter",
                param=f"body.{name[:100]}",
            )
    if not isinstance(body.get("model"), str):
        raise _missing("body.model", "must name a model")


def _caption(custom_id: str, body: dict[str, Any], *, has_upload: bool, max_image_bytes: int) -> Line:
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise _refused("body.max_completion_tokens", "is given beside max_tokens; give one of the two")
    texts: list[str] = []
    images: list[str | bytes] = []
    for place, part in _parts(body.get("messages")):
        if isinstance(part, str):
            if IMAGE_MARK in part:
                raise _refused(place, f"holds {IMAGE_MARK!r}, which stands for an image; give the image as a part")
            texts.append(part)
        else:
            images.append(_image(place, part, has_upload=has_upload, max_image_bytes=max_image_bytes))
            texts.append(IMAGE_MARK)
    if not images:
        raise _missing("body.messages", "hold no image; give a part of the type `image_url`")
    if len(images) > MAX_IMAGES_PER_PROMPT:
        raise _refused("body.messages", f"hold {len(images)} images; at most {MAX_IMAGES_PER_PROMPT} fit one prompt")
    if len(images) == 1:  # it goes in front, as in every other captioning job
        texts.remove(IMAGE_MARK)
    prompt = "\n".join(text for text in texts if text.strip())
    _check_prompt("body.messages", prompt)
    options = _options(body, CaptionOptions())
    return Line(custom_id, body["model"], prompt or None, _seed(body), options, tuple(images))


def _parts(messages: object) -> list[tuple[str, Any]]:
    """The parts of all messages in order, each with its place: a text, or what `image_url` holds."""
    if not isinstance(messages, list) or not messages:
        raise _missing("body.messages", "must be a list of messages")
    parts: list[tuple[str, Any]] = []
    for number, message in enumerate(messages):
        place = f"body.messages[{number}]"
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ("system", "developer", "user"):
            raise _refused(f"{place}.role", "must be system, developer or user: a caption answers one question")
        if isinstance(content, str):
            parts.append((f"{place}.content", content))
        elif isinstance(content, list):
            parts += [_part(f"{place}.content[{k}]", part) for k, part in enumerate(content)]
        else:
            raise _refused(f"{place}.content", "must be text, or a list of parts")
    return parts


def _part(place: str, part: object) -> tuple[str, Any]:
    match part:
        case {"type": "text", "text": str(text)}:
            return f"{place}.text", text
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return f"{place}.image_url.url", {"url": url}
        case _:
            raise _refused(place, "must be a part of the type `text` or `image_url`")


def _image(place: str, part: dict[str, str], *, has_upload: bool, max_image_bytes: int) -> str | bytes:
    url = part["url"]
    if url.startswith("data:"):
        return _inline(place, url, max_image_bytes)
    if is_url(url):
        return url
    if not has_upload:
        raise _refused(place, "is no data: or http(s) URL, and the batch names no `upload` that it could lie in")
    if not is_safe_name(url):
        raise _refused(place, "is not a relative name below the upload")
    return url


def _inline(place: str, url: str, max_image_bytes: int) -> bytes:
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise _refused(place, "must be a data: URL in base64, such as data:image/png;base64,…")
    if len(data) * 3 // 4 > max_image_bytes + 2:
        raise _refused(place, f"holds more than {max_image_bytes} bytes (JANUS_MAX_IMAGE_BYTES)", "image_too_large")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(place, f"is not base64 ({error})") from None


def _drawing(custom_id: str, body: dict[str, Any]) -> Line:
    prompt, form = body.get("prompt"), body.get("response_format", "b64_json")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _missing("body.prompt", "must say what the picture should show")
    _check_prompt("body.prompt", prompt)
    if form not in ("b64_json", "url"):
        raise _refused("body.response_format", "must be 'b64_json' or 'url'")
    options = _options(body, GenerateOptions())
    return Line(
        custom_id, body["model"], prompt, _seed(body), options, size=_size(body.get("size")), as_link=form == "url"
    )


def _size(value: object) -> tuple[int, int] | None:
    if value is None or value == "auto":
        return None
    width, _, height = value.partition("x") if isinstance(value, str) else ("", "", "")
    if not (width.isdecimal() and height.isdecimal() and len(width) < 6 and len(height) < 6):
        raise _refused("body.size", "must be 'auto', or a width and a height such as '384x384'")
    return int(width), int(height)


def _check_prompt(place: str, prompt: str) -> None:
    if len(prompt) > MAX_PROMPT_LENGTH:
        raise _refused(place, f"has {len(prompt)} characters; at most {MAX_PROMPT_LENGTH} are accepted")


def _options(body: Mapping[str, Any], usual: Options) -> dict[str, Any]:
    kind = JobKind.caption if isinstance(usual, CaptionOptions) else JobKind.generate
    for theirs, ours in _OWN[kind].items():
        if theirs in body:
            try:
                options_of_item(usual, {ours: body[theirs]})
            except InvalidRequest as error:
                raise _refused(f"body.{theirs}", f"is refused: {error.message.removeprefix('options.')}") from None
    return {ours: body[theirs] for theirs, ours in _OWN[kind].items() if theirs in body}


def _seed(body: Mapping[str, Any]) -> int | None:
    seed = body.get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed <= MAX_SEED):
        raise _refused("body.seed", f"must be a whole number from 0 to {MAX_SEED}")
    return seed


def _refused(place: str, what: str, code: str = "invalid_value") -> LineRefused:
    return LineRefused(f"{place} {what}", code=code, param=place)


def _missing(place: str, what: str) -> LineRefused:
    return _refused(place, what, "missing_required_parameter")
