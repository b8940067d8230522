"""Keys: shape, checksum, secrecy."""

from __future__ import annotations

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


def test_keys_differ() -> None:
    assert len({new_key().text for _ in range(100)}) == 100
