"""Prompts with fields: words are replaced, and nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.domain.image_refs import ImageNames
from orchestrator.domain.items import Item, ItemReader
from orchestrator.domain.jobs import MAX_PROMPT_LENGTH, CaptionOptions
from orchestrator.domain.templates import FieldMissing, TextTooLong, is_template, name_fields, render, words_of


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("A photo tagged {tags}. Describe it.", "A photo tagged cat, 2. Describe it."),
        ("{n}{n} {x y} {a.b}", "77 spaced dotted"),
        ("{{n}} is {n}, }} and {{", "{n} is 7, } and {"),
        ("{n} {!r} { n } {n:>9} {n!r} {", "7 {!r} { n } {n:>9} {n!r} {"),
        ("{braces}", "{n} {{"),
        ('Answer as {"a": {"b": 1}}.', 'Answer as {"a": {"b": 1}}.'),
    ],
)
def test_words_are_replaced_and_nothing_else(template: str, text: str) -> None:
    fields = {"tags": ["cat", 2], "n": 7, "x y": "spaced", "a.b": "dotted", "braces": "{n} {{"}
    assert render(template, fields, max_length=100) == text


def test_fields_that_are_not_there_or_no_text_are_told() -> None:
    for template in ("{__class__}", "{a.__class__}", "{0}", "{b}"):
        with pytest.raises(FieldMissing, match=r"this item has a, c"):
            render(template, {"a": "x", "c": {}}, max_length=100)
    for value in (None, {}, [{}], [None]):
        with pytest.raises(FieldMissing):
            render("{a}", {"a": value}, max_length=100)


def test_a_small_template_cannot_make_a_large_text() -> None:
    with pytest.raises(TextTooLong):
        render("{a}" * 6000, {"a": "x" * 250_000}, max_length=MAX_PROMPT_LENGTH)


def test_words_of_a_template() -> None:
    assert words_of("{a} {{b}} {c d}") == {"a", "c d"}
    assert words_of("{{b}}") == set()
    assert is_template("{{b}}")
    assert words_of("none {") == set()


@settings(max_examples=500, derandomize=True, deadline=2000)
@given(st.lists(st.sampled_from(["{", "}", "a", "{a}", "{{", "}}", " ", "!", ":", "é"]), max_size=30).map("".join))
def test_any_text_is_rendered_or_names_what_is_missing(template: str) -> None:
    assert "{{" not in render(
        template.replace("{{", ""), {"a": "", "é": "", "aa": ""} | dict.fromkeys(words_of(template), ""), max_length=99
    )


def read(prompt: str, *lines: dict[str, Any]) -> list[Item]:
    return list(ItemReader(CaptionOptions(prompt=prompt), ImageNames("u/")).read(lines))


def test_each_item_gets_the_jobs_prompt_with_its_own_fields() -> None:
    one, own, named, bare = read(
        "{name} of {folder}: {tags}",
        {"image": "cats/a.b.png", "fields": {"tags": ["x", "y"]}},
        {"image": "b.png", "prompt": "{tags} as they are"},
        {"id": "c/d/e", "image": "c.png", "fields": {"tags": 1, "name": "own"}},
        {"image": "d.png"},
    )
    assert one.prompt == "a.b of cats: x, y"
    assert own.prompt == "{tags} as they are"
    assert named.prompt == "own of d: 1"
    assert bare.failure is not None
    assert bare.failure.code == "field_missing"
    assert "'tags'" in bare.failure.message
    assert name_fields("x") == {"id": "x", "name": "x", "folder": ""}


def test_fields_of_the_wrong_kind_and_prompts_that_come_out_wrong_are_failures() -> None:
    for line, code in (
        ({"image": "a.png", "fields": []}, "item_invalid"),
        ({"image": "b.png", "fields": {"a": "   "}}, "prompt_empty"),
        ({"image": "c.png", "fields": {"a": "x" * 30_000}}, "item_invalid"),
        ({"image": "d.png", "failure": "the tar ends here"}, "source_unreadable"),
        ({"image": "e.png", "failure": 3}, "item_invalid"),
    ):
        [item] = read("{a}", line)
        assert item.failure is not None
        assert item.failure.code == code
