"""Keys: shape, checksum, secrecy."""

from __future__ import annotations

import re

import pytest

from orchestrator.client import Client, ClientError
from orchestrator.domain.keys import new_key, parse_key, secret_matches


def test_key_is_found_by_its_id_and_proved_by_its_secret() -> None:
    key = new_key()
    parsed = parse_key(key.text)
    assert parsed is not None
    key_id, secret = parsed
    assert key_id == key.id
    assert secret_matches(secret, key.secret_sha256)
    assert secret not in key.secret_sha256


def test_mistyped_key_fails_its_checksum() -> None:
    text = new_key().text
    for place in range(len("jns_live_"), len(text)):
        changed = text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]
        assert parse_key(changed) is None


def test_nonsense_is_no_key() -> None:
    assert parse_key("") is None
    assert parse_key("sk-something") is None
    assert parse_key(new_key().text + "x") is None


def test_a_scanner_finds_it_by_its_form() -> None:
    text = f"export JANUS_API_KEY={new_key().text}\n"
    assert re.search(r"\bjns_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b", text)


def test_a_mistyped_key_is_told_before_anything_is_sent() -> None:
    with pytest.raises(ClientError, match="mistyped"):
        Client("http://127.0.0.1:1", new_key().text[:-1] + "!")


def test_keys_differ() -> None:
    assert len({new_key().text for _ in range(100)}) == 100
