from __future__ import annotations

import json
from pathlib import Path

import pytest

from janus_core import registry
from janus_core.errors import LockMismatch, UnknownModel

COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JANUS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fake_download(repo: str, folder: Path) -> str:
    assert repo == "deepseek-ai/Janus-Pro-1B"
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "progress").write_text("x")
    return COMMIT


def test_pull_locks_every_file(home: Path) -> None:
    folder = registry.pull("janus-pro-1b", fake_download)
    assert folder == home / "models" / "janus-pro-1b" == registry.resolve("janus-pro-1b")
    lock = json.loads((folder / registry.LOCK_NAME).read_text())
    assert (lock["repo"], lock["commit"]) == ("deepseek-ai/Janus-Pro-1B", COMMIT)
    assert sorted(lock["files"]) == ["config.json", "pytorch_model.bin"]
    assert lock["files"]["pytorch_model.bin"]["size"] == 7
    assert registry.verify(folder) == 2
    assert registry.revision_of(folder) == COMMIT
    published = registry.find_published("anything", folder)
    assert published is not None
    assert (published.name, published.roles) == ("janus-pro-1b", "bracketed")


def test_verify_names_what_is_missing_and_what_differs(home: Path) -> None:
    folder = registry.pull("janus-pro-1b", fake_download)
    (folder / "config.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"Weights")
    with pytest.raises(LockMismatch) as caught:
        registry.verify(folder)
    assert (caught.value.missing, caught.value.differing) == (("config.json",), ("pytorch_model.bin",))
    assert "pytorch_model.bin" in str(caught.value)
    (folder / registry.LOCK_NAME).unlink()
    with pytest.raises(LockMismatch, match=r"janus\.lock\.json"):
        registry.verify(folder)


def test_a_name_that_is_not_pulled_says_what_to_run() -> None:
    with pytest.raises(UnknownModel, match="janus models pull janus-pro-7b"):
        registry.resolve("janus-pro-7b")
    with pytest.raises(UnknownModel, match="janus-pro-1b"):
        registry.resolve("llava")
    with pytest.raises(UnknownModel):
        registry.resolve("../models")
    with pytest.raises(UnknownModel):
        registry.pull("llava", fake_download)


def test_a_folder_without_a_lock_is_named_by_samples_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(3_000_000))
    first = registry.revision_of(tmp_path)
    assert first.startswith("sha256:")
    assert len(first) == 7 + 16
    assert registry.revision_of(tmp_path) == first
    changed = bytearray(3_000_000)
    changed[-40_000:] = b"x" * 40_000
    weights.write_bytes(changed)
    assert registry.revision_of(tmp_path) != first


def test_command_line(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_download_from_hub", fake_download)
    assert registry.main(["list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(registry.MODELS)
    assert registry.main(["verify", "janus-pro-1b"]) == 1
    assert "janus models pull janus-pro-1b" in capsys.readouterr().err
    assert registry.main(["pull", "janus-pro-1b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == COMMIT
    assert registry.main(["verify", str(home / "models" / "janus-pro-1b")]) == 0
    assert "files=2" in capsys.readouterr().out
    assert registry.main(["show", "janus-pro-1b"]) == 0
    assert registry.main(["show", "llava"]) == 1
