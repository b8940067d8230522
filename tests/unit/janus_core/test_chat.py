from __future__ import annotations

from janus_core.processing.chat import (
    BRACKETED,
    EOS,
    IMAGE,
    PLAIN,
    SYSTEM_PROMPT,
    caption_prompt,
    format_conversation,
    image_prompt,
)


def test_messages_are_stripped_and_an_empty_one_stays_open() -> None:
    messages = [("User", "  a  "), ("Assistant", "b\n"), ("User", "c"), ("Assistant", " ")]
    assert format_conversation(messages, "") == f"User: a\n\nAssistant: b{EOS}User: c\n\nAssistant:"
    assert format_conversation(messages[:1], "S") == "S\n\nUser: a"


def test_separators_go_by_position_and_not_by_role() -> None:
    assert format_conversation([("System", "s"), ("User", "u"), ("Assistant", "")], "") == (
        f"System: s\n\nUser: u{EOS}Assistant:"
    )


def test_one_image_goes_in_front_unless_the_prompt_places_it() -> None:
    assert caption_prompt("What?", PLAIN) == f"{SYSTEM_PROMPT}\n\nUser: {IMAGE}\nWhat?\n\nAssistant:"
    assert caption_prompt(f"Is {IMAGE} red?", BRACKETED) == (
        f"{SYSTEM_PROMPT}\n\n<|User|>: Is {IMAGE} red?\n\n<|Assistant|>:"
    )


def test_drawing_has_no_system_prompt() -> None:
    assert image_prompt("a cat", BRACKETED) == "<|User|>: a cat\n\n<|Assistant|>:<begin_of_image>"
