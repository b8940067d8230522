"""Lines of an OpenAI batch: what becomes of each, and that none raises anything but a refusal."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import JobState
from orchestrator.domain.openai_answers import encode, refused_line
from orchestrator.domain.openai_batches import OpenaiState, state_after, window_seconds
from orchestrator.domain.openai_lines import Line, LineRefused, read_line
from tests.unit.test_fuzz import any_text, fuzzed, json_values

CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"
PIXEL = "data:image/png;base64," + base64.b64encode(b"pixel").decode()


def read(record: object, endpoint: str = CHAT, *, has_upload: bool = False) -> Line:
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    return read_line(raw, endpoint=endpoint, has_upload=has_upload, max_line_bytes=5000, max_image_bytes=20)


def chat(*content: Any, **body: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": list(content)}]} | body
    return {"custom_id": "a", "method": "POST", "url": CHAT, "body": body}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: str = PIXEL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def drawing(**body: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": IMAGES, "body": {"model": "m", "prompt": "p"} | body}


def test_one_image_goes_in_front_and_several_stand_where_they_are() -> None:
    assert read(chat(text("What?"), image())) == Line("a", "m", "What?", None, {}, (b"pixel",))
    assert read(chat(image())).prompt is None, "the question of every captioning job"
    several = read(chat(text("First"), image(), text("then"), image()))
    assert several.prompt == "First\n<image_placeholder>\nthen\n<image_placeholder>"
    system = {"role": "system", "content": "Be short."}
    assert read(chat(messages=[system, {"role": "user", "content": [image()]}])).prompt == "Be short."


def test_options_have_our_names_and_usual_values_change_nothing() -> None:
    line = read(chat(image(), max_completion_tokens=9, temperature=0.5, seed=3, n=1, stream=False, user="u", stop=None))
    assert (line.options, line.seed) == ({"max_tokens": 9, "temperature": 0.5}, 3)
    drawn = read(drawing(n=3, size="384x256", response_format="url", guidance=2, quality="auto"), IMAGES)
    assert (drawn.options, drawn.num_seeds) == ({"images": 3, "guidance": 2}, 3)
    assert (drawn.size, drawn.as_link) == ((384, 256), True)


def test_names_need_an_upload() -> None:
    assert read(chat(image("photos/a.jpg")), has_upload=True).images == ("photos/a.jpg",)
    assert read(chat(image("https://example.org/a"))).images == ("https://example.org/a",), "judged by who fetches it"
    for url, has_upload in (("photos/a.jpg", False), ("../a.jpg", True), ("", True)):
        with pytest.raises(LineRefused):
            read(chat(image(url)), has_upload=has_upload)


REFUSED: list[tuple[Any, str, str | None]] = [
    (b"{", "invalid_json_line", None),
    (b"\xff", "invalid_json_line", None),
    ([], "invalid_json_line", None),
    (b'"' + b"x" * 6000 + b'"', "line_too_long", None),
    ({**chat(image()), "custom_id": 3}, "invalid_custom_id", "custom_id"),
    ({**chat(image()), "custom_id": "a\x00"}, "invalid_custom_id", "custom_id"),
    ({**chat(image()), "method": "GET"}, "invalid_method", "method"),
    ({**chat(image()), "url": IMAGES}, "mismatched_endpoint", "url"),
    ({**chat(image()), "body": None}, "missing_required_parameter", "body"),
    (chat(text("no image")), "missing_required_parameter", "body.messages"),
    (chat(*[image()] * 17), "invalid_value", "body.messages"),
    (chat(text("<image_placeholder>"), image()), "invalid_value", "body.messages[0].content[0].text"),
    (chat({"type": "input_audio"}), "invalid_value", "body.messages[0].content[0]"),
    (chat(messages=[{"role": "assistant", "content": "x"}]), "invalid_value", "body.messages[0].role"),
    (chat(image("data:image/png,abc")), "invalid_value", "body.messages[0].content[0].image_url.url"),
    (chat(image("data:;base64,!!")), "invalid_value", "body.messages[0].content[0].image_url.url"),
    (chat(image(PIXEL + "A" * 40)), "image_too_large", "body.messages[0].content[0].image_url.url"),
    (chat(image(), max_tokens=0), "invalid_value", "body.max_tokens"),
    (chat(image(), max_tokens=4, max_completion_tokens=4), "invalid_value", "body.max_completion_tokens"),
    (chat(image(), temperature="hot"), "invalid_value", "body.temperature"),
    (chat(image(), seed=-1), "invalid_value", "body.seed"),
    (chat(image(), n=2), "invalid_value", "body.n"),
    (chat(image(), odd=1), "unknown_parameter", "body.odd"),
    (chat(image(), model=None), "missing_required_parameter", "body.model"),
]


@pytest.mark.parametrize(("record", "code", "param"), REFUSED)
def test_a_bad_line_says_which_field_is_wrong(record: Any, code: str, param: str | None) -> None:
    with pytest.raises(LineRefused) as refused:
        read(record)
    assert (refused.value.code, refused.value.param) == (code, param)
    answer = json.loads(encode(refused_line("batch_x", 7, refused.value)))
    assert (answer["id"], answer["response"]["status_code"]) == ("batch_req_x_7", 400)
    assert answer["response"]["body"]["error"]["message"].startswith("line 7: ")


@pytest.mark.parametrize("size", ["large", "384", "x384", "384x", "384x384x3", 384, "999999x1"])
def test_odd_sizes_are_refused(size: object) -> None:
    with pytest.raises(LineRefused, match=r"body\.size"):
        read(drawing(size=size), IMAGES)


parts = st.lists(
    st.one_of(st.builds(text, any_text), st.builds(image, any_text), st.just(image()), json_values), max_size=3
)
bodies = st.fixed_dictionaries(
    {"model": st.one_of(any_text, json_values)},
    optional={
        name: st.one_of(json_values, parts) for name in ("messages", "prompt", "n", "seed", "size", "top_p", "tools")
    },
)


@fuzzed
@given(st.sampled_from([CHAT, IMAGES]), st.one_of(st.just("a"), json_values), bodies, parts)
def test_whatever_a_line_holds_it_is_an_item_or_a_refusal(
    endpoint: str, custom_id: Any, body: Any, content: Any
) -> None:
    for each in (body, body | {"model": "m", "messages": [{"role": "user", "content": content}], "prompt": "p"}):
        try:
            line = read({"custom_id": custom_id, "method": "POST", "url": endpoint, "body": each}, endpoint)
        except LineRefused as refused:
            encode(refused_line("batch_x", 1, refused))
        else:
            encode({"prompt": line.prompt, "options": line.options, "id": line.custom_id})


def test_windows() -> None:
    assert [window_seconds(text) for text in ("24h", "90m", "5s", "30d")] == [86_400, 5400, 5, 2_592_000]
    for wrong in ("", "24", "0h", "31d", "h", "-1h", "1.5h", "24 h", "９h"):
        with pytest.raises(InvalidRequest):
            window_seconds(wrong)


def test_how_a_batch_ends() -> None:
    assert state_after(JobState.completed, cancel_asked=False) is OpenaiState.completed
    assert state_after(JobState.expired, cancel_asked=False) is OpenaiState.expired
    assert state_after(JobState.expired, cancel_asked=True) is OpenaiState.cancelled
    assert state_after(JobState.cancelled, cancel_asked=False) is OpenaiState.cancelled, "by its job"
    assert state_after(JobState.failed, cancel_asked=False) is OpenaiState.failed
    assert state_after(None, cancel_asked=False) is OpenaiState.failed
