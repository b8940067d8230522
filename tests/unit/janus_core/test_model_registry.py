from __future__ import annotations

import json
from pathlib import Path

import pytest

from janus_core import load_engine, locks, registry
from janus_core.errors import LockMismatch, NeverLocked, PullFailed, UnknownModel

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
    lock = json.loads((folder / locks.LOCK_NAME).read_text())
    assert (lock["repo"], lock["commit"]) == ("deepseek-ai/Janus-Pro-1B", COMMIT)
    assert sorted(lock["files"]) == ["config.json", "pytorch_model.bin"]
    assert lock["files"]["pytorch_model.bin"]["size"] == 7
    assert locks.verify(folder) == 2
    assert registry.revision_of(folder) == COMMIT
    published = registry.find_known("anything", folder)
    assert published is not None
    assert (published.name, published.roles) == ("janus-pro-1b", "bracketed")


def test_pull_of_janusflow_fetches_its_vae_too(home: Path) -> None:
    def download(repo: str, folder: Path) -> str:
        asked.append((repo, folder.name))
        name = "diffusion_pytorch_model" if folder.name == "vae" else "model"
        for file in ("config.json", "tokenizer.json", f"{name}.safetensors"):
            (folder / file).write_text("{}")
        return repo[0] * 40

    asked: list[tuple[str, str]] = []
    folder = registry.pull("janusflow-1.3b", download)
    assert asked == [("deepseek-ai/JanusFlow-1.3B", ".janusflow-1.3b.arriving"), ("stabilityai/sdxl-vae", "vae")]
    lock = locks.read_lock(folder)
    assert lock is not None
    assert (lock["commit"], lock["vae_repo"], lock["vae_commit"]) == ("d" * 40, "stabilityai/sdxl-vae", "s" * 40)
    assert "vae/diffusion_pytorch_model.safetensors" in lock["files"]
    published = registry.find_known("anything", folder)
    assert published is not None
    assert (published.family, published.roles) == ("janusflow", "plain")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(UnknownModel, match=r"lacks vae/config\.json. Run: janus models pull janusflow-1\.3b"):
        registry.resolve("janusflow-1.3b")
    (folder / locks.LOCK_NAME).unlink()
    with pytest.raises(UnknownModel, match=r"lacks vae/config\.json"):
        registry.resolve("janusflow-1.3b")


def test_a_shipped_model_is_found_by_its_name_and_never_pulled(tmp_path: Path) -> None:
    folder = registry.resolve("janus-tiny")
    assert folder == registry.SHIPPED / "janus-tiny"
    assert locks.verify(folder) == len([path for path in folder.rglob("*") if path.is_file()]) - 1
    with pytest.raises(PullFailed, match="nothing to pull"):
        registry.pull("janus-tiny", fake_download)
    known = registry.find_known("janus-tiny", folder)
    assert known is not None
    assert (known.repo, registry.describe(known)["revision"]) == (None, registry.revision_of(folder))
    (tmp_path / locks.LOCK_NAME).write_text('{"files": {}}')
    assert registry.find_known("own", tmp_path) is None


def test_the_vae_belongs_to_what_a_folder_without_a_lock_is(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vae" / "config.json").write_text("{}")
    first = registry.revision_of(tmp_path)
    (tmp_path / "vae" / "config.json").write_text("[]")
    assert registry.revision_of(tmp_path) != first


def test_verify_names_what_is_missing_and_what_differs(home: Path) -> None:
    folder = registry.pull("janus-pro-1b", fake_download)
    (folder / "config.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"Weights")
    with pytest.raises(LockMismatch) as caught:
        locks.verify(folder)
    assert (caught.value.missing, caught.value.differing) == (("config.json",), ("pytorch_model.bin",))
    assert "pytorch_model.bin" in str(caught.value)
    assert "Pull the model again" in str(caught.value)
    (folder / locks.LOCK_NAME).write_text("[]")
    with pytest.raises(LockMismatch, match=r"differing: janus\.lock\.json"):
        locks.verify(folder)


def test_a_pull_that_fails_leaves_no_folder_and_the_next_goes_on(home: Path) -> None:
    def fail(_: str, folder: Path) -> str:
        (folder / "config.json").write_text("{}")
        raise PullFailed("the network is away")

    def go_on(repo: str, folder: Path) -> str:
        assert (folder / "config.json").exists()
        return fake_download(repo, folder)

    with pytest.raises(PullFailed):
        registry.pull("janus-pro-1b", fail)
    with pytest.raises(UnknownModel, match="janus models pull janus-pro-1b"):
        registry.resolve("janus-pro-1b")
    folder = registry.pull("janus-pro-1b", go_on)
    assert locks.verify(folder) == 2
    assert [path.name for path in (home / "models").iterdir()] == ["janus-pro-1b"]


def test_what_was_pulled_stays_until_the_next_pull_is_whole(home: Path) -> None:
    def fail(_: str, folder: Path) -> str:
        raise PullFailed("the network is away")

    folder = registry.pull("janus-pro-1b", fake_download)
    (folder / "stale.json").write_text("{}")
    with pytest.raises(PullFailed):
        registry.pull("janus-pro-1b", fail)
    assert locks.verify(folder) == 2
    registry.pull("janus-pro-1b", fake_download)
    assert not (folder / "stale.json").exists()
    elsewhere = folder.rename(home / "elsewhere")
    folder.symlink_to(elsewhere)
    registry.pull("janus-pro-1b", fake_download)
    assert not folder.is_symlink()
    assert locks.verify(elsewhere) == 2


def test_a_published_model_that_is_not_whole_says_what_to_run(home: Path) -> None:
    folder = home / "models" / "janus-pro-1b"
    folder.mkdir(parents=True)
    for name_or_path in ("janus-pro-1b", folder, str(folder)):
        with pytest.raises(UnknownModel, match=r"lacks config.json, tokenizer.json, weights. Run: janus models pull"):
            registry.resolve(name_or_path)
        with pytest.raises(UnknownModel, match="janus models pull janus-pro-1b"):
            load_engine(name_or_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    assert registry.resolve("janus-pro-1b") == folder
    registry.pull("janus-pro-1b", fake_download)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UnknownModel, match=r"lacks pytorch_model\.bin. Run: janus models pull janus-pro-1b"):
        registry.resolve("janus-pro-1b")


def test_a_checkpoint_of_ones_own_is_locked_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(NeverLocked, match=f"verify {folder} --lock"):
        locks.verify(folder)
    revision = registry.revision_of(folder)
    assert registry.main(["verify", str(folder)]) == 1
    assert "never locked" in capsys.readouterr().err
    assert registry.main(["verify", str(folder), "--lock"]) == 0
    assert list(json.loads((folder / locks.LOCK_NAME).read_text())) == ["files"]
    assert registry.main(["verify", str(folder)]) == 0
    assert registry.revision_of(folder) == revision, "the lock changes nothing of what the checkpoint is"
    assert registry.find_known("own", folder) is None
    (folder / "config.json").write_text("[]")
    capsys.readouterr()
    assert registry.main(["verify", str(folder), "--lock"]) == 1, "a lock that is there is never written over"
    assert "differing: config.json. Restore them" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        registry.main(["show", "janus-pro-1b", "--lock"])


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


def test_its_own_guidance_belongs_to_what_a_folder_without_a_lock_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = registry.revision_of(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"guidance_scale": 2}')
    assert registry.revision_of(tmp_path) != first


def test_command_line(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_download_from_hub", fake_download)
    assert registry.main(["list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(registry.MODELS)
    assert registry.main(["verify", "janus-pro-1b"]) == 1
    assert "janus models pull janus-pro-1b" in capsys.readouterr().err
    assert registry.main(["pull", "janus-pro-1b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == COMMIT
    assert registry.main(["verify", str(home / "models" / "janus-pro-1b")]) == 0
    assert "files=2" in capsys.readouterr().out
    assert registry.main(["show", "janus-pro-1b"]) == 0
    assert registry.main(["show", "llava"]) == 1
