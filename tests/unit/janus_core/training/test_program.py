"""The program of training: which options belong to which recipe, and what is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from janus_core.errors import DataInvalid
from janus_core.training import __main__ as program
from janus_core.training.loop import Settings
from janus_core.training.recipes.sft import Options

Called = list[tuple[Any, ...]]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Called:
    """What recipes are called with; they are done at once."""
    calls: Called = []

    def recipe(out: Path, *more: Any) -> Path:
        calls.append((out, *more))
        return out / "checkpoint"

    monkeypatch.setattr(program, "_FROM_NOTHING", dict.fromkeys(program._FROM_NOTHING, recipe))
    monkeypatch.setattr(program.sft, "main", recipe)
    return calls


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """What sft cannot do without."""
    (tmp_path / "data.jsonl").write_text('{"id": "a.png", "caption": "x"}\n', encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    return ["--recipe=sft", f"--init={tmp_path / 'model'}", f"--data={tmp_path / 'data.jsonl'}"]


def test_a_recipe_is_run_and_the_model_told(tmp_path: Path, called: Called, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    arguments = ["--recipe=janus-tiny", f"--out={tmp_path / 'out'}", "--seed=5", "--precision=float32", "--threads=1"]
    assert program.main(arguments) == 0
    torch.set_num_threads(threads)
    assert called == [(tmp_path / "out", Settings(seed=5, precision="float32"))]
    assert capsys.readouterr().out == f"The model is in {tmp_path / 'out' / 'checkpoint'}\n"


def test_what_sft_is_not_given_is_as_its_options_say(tmp_path: Path, called: Called, given: list[str]) -> None:
    assert program.main([*given, f"--out={tmp_path}", "--precision=float32"]) == 0
    options = Options(str(tmp_path / "model"), tmp_path / "data.jsonl")
    more = ["--prompt=Why?", "--epochs=0.5", "--batch-size=3", "--learning-rate=1e-5", "--images=pictures"]
    assert program.main([*given, f"--out={tmp_path}", "--precision=float32", *more]) == 0
    settings = Settings(seed=0, precision="float32")
    chosen = Options(options.init, options.data, Path("pictures"), "Why?", 0.5, 3, 1e-5)
    assert called == [(tmp_path, settings, options), (tmp_path, settings, chosen)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recipe=janus-tiny", "--init=m"], "--init: of --recipe sft alone, not of janus-tiny"),
        (
            ["--recipe=janusflow-tiny", "--batch-size=3", "--learning-rate=1"],
            "--batch-size and --learning-rate: of --recipe sft alone, not of janusflow-tiny",
        ),
        (["--recipe=sft"], "--recipe sft needs --init and --data"),
        (["--recipe=sft", "--init=m"], "--recipe sft needs --data"),
        (["--recipe=sft", "--init=m", "--data=d", "--epochs=0"], "'0' is not a number above 0"),
        (["--recipe=sft", "--init=m", "--data=d", "--epochs=nan"], "'nan' is not a number above 0"),
        (["--recipe=sft", "--init=m", "--data=d", "--learning-rate=x"], "'x' is not a number above 0"),
        (["--recipe=sft", "--init=m", "--data=d", "--batch-size=0"], "'0' is not a whole number, 1 or more"),
        (["--recipe=align"], "invalid choice: 'align'"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(
    arguments: list[str], told: str, called: Called, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main([*arguments, "--out=out"])
    assert told in capsys.readouterr().err
    assert called == []


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (DataInvalid("data.jsonl has no line with a caption"), 1, "data.jsonl has no line with a caption\n"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on with what was last saved\n"),
    ],
)
def test_errors_are_a_sentence_and_a_status(
    error: BaseException,
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def recipe(out: Path, settings: Settings) -> Path:
        raise error

    monkeypatch.setitem(program._FROM_NOTHING, "janus-tiny", recipe)
    assert program.main(["--recipe=janus-tiny", f"--out={tmp_path}"]) == status
    assert capsys.readouterr().err == told


def test_data_and_models_that_are_not_there_are_told(
    tmp_path: Path, called: Called, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([*given, f"--out={tmp_path}", "--data=none.jsonl"]) == 1
    assert capsys.readouterr().err.startswith("none.jsonl cannot be read: ")
    assert program.main([*given, f"--out={tmp_path}", "--init=nowhere"]) == 1
    assert "'nowhere' is neither a folder nor a model" in capsys.readouterr().err
    assert called == []


def test_a_run_goes_on_only_with_the_content_it_was_begun_with(
    tmp_path: Path, called: Called, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [*given, f"--out={out}", "--precision=float32"]
    assert program.main(command) == 0
    (out / "sft").mkdir()
    (out / "sft" / "state.pt").write_bytes(b"")
    shutil.move(tmp_path / "data.jsonl", tmp_path / "moved.jsonl")
    moved = [*command, f"--data={tmp_path / 'moved.jsonl'}"]
    assert program.main(moved) == 0
    assert program.main([*moved, "--epochs=9"]) == 1
    assert "begun with epochs 3.0" in capsys.readouterr().err
    with (tmp_path / "moved.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "b.png", "caption": "y"}\n')
    assert program.main(moved) == 1
    assert "begun with data 'sha256:" in capsys.readouterr().err
    assert len(called) == 2
    assert json.loads((out / "options.json").read_text(encoding="utf-8"))["recipe"] == "sft"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--prompt=<image_placeholder> or <image_placeholder>?"], "room for 2 pictures; every pair has one"),
        ([f"--prompt={'why ' * 5000}"], "tokens long and 4095 fit. Shorten it."),
        (["--init=MODEL/vae"], "neither a folder nor a model"),
    ],
)
def test_what_cannot_be_trained_is_told_before_training(
    more: list[str], told: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"any")
    (tmp_path / "data.jsonl").write_text('{"id": "a.png", "caption": "x"}\n', encoding="utf-8")
    given = ["--recipe=sft", f"--init={tiny_checkpoint}", f"--data={tmp_path / 'data.jsonl'}", f"--out={tmp_path}"]
    assert program.main([*given, *more]) == 1
    assert told in capsys.readouterr().err
