"""The benchmark runs everybody on the same inputs, and everybody gives the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from janus_core import load_engine
from janus_core.bench.__main__ import main
from janus_core.bench.cases import Case
from janus_core.bench.compare import Ratio, equal_share
from janus_core.bench.inputs import Inputs
from janus_core.bench.ours import Ours
from janus_core.bench.roofline import Limits, Needs, needs
from janus_core.checkpoints.random import tiny_flow_config, write_random_checkpoint
from janus_core.engine import lane


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("bench") / "tiny", dtype="float32", seed=1)


@pytest.mark.parametrize("task", ["caption", "generate"])
@pytest.mark.parametrize("batch", [1, 3])
def test_everybody_gives_the_same_tokens(
    folder: Path, task: str, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        f"--model={folder}",
        f"--task={task}",
        f"--batch={batch}",
        "--prompt-tokens=40",
        "--tokens=6",
        "--rounds=2",
    ]
    assert main([*given, "--device=cpu", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    answer = 36 if task == "generate" else 6
    assert figures["case"] == {
        "task": task,
        "batch": batch,
        "prompt_tokens": 40,
        "num_tokens": 6,
        "answer_tokens": answer,
    }
    assert set(figures["contenders"]) == {"janus-batch", "transformers", "official-style"}
    for times in figures["contenders"].values():
        assert times["step_ms"] > 0
        assert times["first_seconds"] > 0
    assert {peer["equal_tokens"] for peer in figures["against"].values()} == {1.0}
    ours = figures["contenders"]["janus-batch"]
    whole = ours["first_seconds"] + (answer - 1) * ours["step_ms"] / 1000
    assert ours["answers_per_hour"] == pytest.approx(3600 * batch / whole, rel=0.5)
    assert figures["peak_gb"] > 0.1


def test_bytes_and_flops_are_those_of_the_layers(folder: Path) -> None:
    engine = load_engine(folder, device="cpu")
    layer = 128 * 384 + 128 * 128 + 128 * 704 + 352 * 128
    layers, prompt = 3 * layer, 2 * layer + 128 * 384
    cached = 2 * 3 * 128 * 4
    drawing = needs(engine, Case("generate", 2, 40, 6, 36), prompt_tokens=40)
    assert drawing.step_bytes == 4 * (layers + 128 * 128 + 128 * 512) + 4 * 43 * cached
    assert drawing.step_flops == 4 * (2 * (layers + 128 * 128 + 128 * 512) + 4 * 3 * 128 * 43)
    assert drawing.first_flops == 2 * (2 * prompt * 40 + 2 * 3 * 128 * 40**2)
    caption = needs(engine, Case("caption", 2, 0, 6, 6), prompt_tokens=50)
    assert caption.step_bytes == 4 * (layers + 128 * 384) + 2 * 53 * cached
    tower = 3 * 4 * 64 * 64 + 3 * 2 * 64 * 256 + 64 * 128 + 128 * 128 + 3 * 16 * 16 * 64
    reading = 36 * (2 * tower + 4 * 3 * 64 * 36)
    assert caption.first_flops == 2 * (2 * prompt * 50 + 2 * 3 * 128 * 50**2 + reading)
    if not torch.cpu._is_vnni_supported():
        return
    small = needs(load_engine(folder, device="cpu", quantize="int8"), Case("caption", 2, 0, 6, 6), 50)
    assert caption.step_bytes - small.step_bytes == 3 * layers
    assert (small.step_flops, small.first_flops) == (0, 0)


def test_a_roofline_is_the_larger_of_two() -> None:
    limits = Limits(bandwidth=10.0, matrix_rate=100.0)
    assert Needs(20, 100, 300).step_seconds(limits) == 2
    assert Needs(20, 400, 300).step_seconds(limits) == 4
    assert Needs(20, 400, 300).first_seconds(limits) == 3


def test_our_steps_are_those_of_all_requests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they begin one after the other, as on a CPU at full size."""
    monkeypatch.setattr(lane, "prefill_tokens", lambda _: 1)
    engine = load_engine(folder, device="cpu")
    timing = Ours(engine, Inputs(engine)).run(Case("generate", 5, 40, 4, 36))
    assert len(timing.step_seconds) == 3
    assert [len(tokens) for tokens in timing.tokens] == [4] * 5


def test_captions_of_mixed_length_are_theirs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"--model={folder}", "--task=mixed", "--batch=20", "--tokens=40", "--rounds=1", "--device=cpu"]
    assert main([*given, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["against"]["transformers"]["equal_tokens"] == 1.0
    assert 8 * 20 < figures["tokens"] < 40 * 20
    assert main([*given, "--peer=none"]) == 0
    assert "janus-batch" in capsys.readouterr().out


def test_flow_is_the_published_loops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_random_checkpoint(tmp_path, tiny_flow_config(), dtype="float32")
    given = [f"--model={tmp_path}", "--batch=2", "--prompt-tokens=24", "--tokens=3", "--rounds=1", "--device=cpu"]
    assert main([*given, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["against"]["official-style"]["difference"] < 1e-5
    ours = figures["contenders"]["janus-batch"]
    assert ours["image_seconds"] == pytest.approx(ours["seconds"] / 2 * 30 / 3)
    assert main([*given, "--peer=transformers"]) == 1
    assert "official-style" in capsys.readouterr().err
    assert main([*given, "--task=caption"]) == 1


@pytest.mark.parametrize("task", ["encode", "decode"])
def test_parts_are_theirs(folder: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"--model={folder}", f"--task={task}", "--batch=2", "--rounds=1", "--device=cpu"]
    assert main([*given, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["against"]["transformers"]["difference"] < 1e-5
    assert main(given) == 0
    assert "difference" in capsys.readouterr().out


def test_random_weights_of_a_shape_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["--shape=narrow", "--tokens=3", "--rounds=1", "--peer=none", "--device=cpu"]) == 0
    assert "of the roofline" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main(["--shape=tiny", f"--model={tmp_path}"]) == 1
    assert "either --model" in capsys.readouterr().err


def test_a_table_and_a_folder_that_is_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--model={folder}", "--tokens=4", "--rounds=1", "--peer=official-style", "--device=cpu"]) == 0
    header, ours, peer, *_ = capsys.readouterr().out.splitlines()
    assert "a step" in header
    assert ours.startswith("janus-batch")
    assert peer.startswith("official-style")
    assert "100%" in peer
    assert main([f"--model={folder}", "--task=encode", "--peer=official-style"]) == 1
    assert "transformers" in capsys.readouterr().err
    assert main([f"--model={tmp_path / 'nothing'}"]) == 1
    assert "nothing" in capsys.readouterr().err


def test_ratios_and_equal_shares() -> None:
    assert Ratio.of([3.0, 1.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    assert equal_share([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 0, 4], [5, 6, 7, 8]]) == 6 / 8
