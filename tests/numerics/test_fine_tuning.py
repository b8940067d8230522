"""`janus train --recipe sft`: from a checkpoint and captions to a checkpoint, of every family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from janus_core import Caption, CaptionRequest, GeneratedImage, GenerateRequest, load_engine
from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.load import build_empty, load_model
from janus_core.checkpoints.random import tiny_config, tiny_flow_config, write_random_checkpoint
from janus_core.configs import Layout, ModelConfig
from janus_core.processing import chat
from janus_core.training import __main__ as program
from janus_core.training.batches import MixedBatch, TextRow, collate_understanding
from janus_core.training.initial import initialise
from janus_core.training.loop import read_log
from janus_core.training.recipes import sft

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
READ = {"vision", "aligner", "llama", "text_head"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `janus caption` would have written about a few pictures."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = []
    for index, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (40 + 9 * index, 60 - 7 * index), colour).save(folder / f"{name}.png")
        answer = {"index": index, "id": f"{name}.png", "caption": f"all {name}", "num_tokens": 2}
        lines.append({**answer, "finish_reason": "stop", "seed": index, "model": "m", "revision": "r"})
    failure = {"code": "image_unreadable", "message": "no", "attempts": 1}
    lines.append({"index": 4, "id": "cut.png", "failure": failure})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder / "captions.jsonl"


def tune(init: Path, data: Path, out: Path, *more: str) -> int:
    given = ["--recipe=sft", f"--init={init}", f"--data={data}", f"--out={out}", "--precision=float32"]
    return program.main([*given, "--batch-size=2", "--epochs=2", "--learning-rate=0.001", *more])


def parameters(folder: Path) -> dict[str, Tensor]:
    return dict(load_model(folder, torch.device("cpu"), None).named_parameters())


def janus(folder: Path) -> Path:
    return write_random_checkpoint(folder, tiny_config())


def janus_of_old(folder: Path) -> Path:
    return write_random_checkpoint(folder, tiny_config(), layout="official", bracketed=False, dtype="float32")


def flow(folder: Path) -> Path:
    return write_random_checkpoint(folder, tiny_flow_config())


@pytest.mark.parametrize(
    ("make", "layout", "roles"),
    [(janus, "hf", chat.BRACKETED), (janus_of_old, "official", chat.PLAIN), (flow, "official", chat.PLAIN)],
)
def test_only_what_reads_pictures_and_writes_answers_changes(
    make: Callable[[Path], Path], layout: Layout, roles: chat.Roles, data: Path, tmp_path: Path
) -> None:
    init = make(tmp_path / "init")
    assert tune(init, data, tmp_path / "out") == 0
    before, after = parameters(init), parameters(tmp_path / "out" / "checkpoint")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == READ | ({"image_start"} if make is flow else set())
    assert {(name, tensor.dtype) for name, tensor in before.items()} == {
        (name, tensor.dtype) for name, tensor in after.items()
    }
    assert read_config(tmp_path / "out" / "checkpoint")[:2] == (read_config(init)[0], layout)
    engine = load_engine(tmp_path / "out" / "checkpoint", device="cpu")
    assert engine.roles == roles
    seen = CaptionRequest(Image.new("RGB", (9, 9)), "What?", max_new_tokens=4)
    assert isinstance(engine.caption([seen])[0], Caption)
    assert isinstance(engine.generate([GenerateRequest("red", steps=2)])[0], GeneratedImage)


def test_the_command_stops_and_goes_on_in_bfloat16_without_a_warning(data: Path, tmp_path: Path) -> None:
    """As it is typed, in processes of its own: accelerate keeps one precision for the life of a process."""
    given = ["--recipe=sft", f"--init={janus(tmp_path / 'init')}", f"--data={data}", "--epochs=1", "--batch-size=2"]
    command = [sys.executable, "-W", "error", "-c", "from orchestrator.cli.main import app; app()", "train", *given]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    for _ in range(2):
        done = subprocess.run(
            [*command, f"--out={tmp_path / 'out'}", "--precision=bfloat16", "--threads=1"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"The model is in {tmp_path / 'out' / 'checkpoint'}"
    assert not [line for line in done.stdout.splitlines() if line.startswith("sft ")], "what is done is not done again"


@pytest.mark.parametrize("config", [tiny_config(), tiny_flow_config()])
def test_what_is_trained_is_what_answers_reach(config: ModelConfig) -> None:
    model = build_empty(config).to_empty(device="cpu")
    initialise(model, 0)
    sft.train_only_reading(model)
    side, patches = config.siglip.image_size, config.siglip.num_patches
    row = TextRow([1, 2, *[300] * patches, 3, 4], patches + 3)
    batch = collate_understanding([row], [np.zeros((3, side, side), np.float32)])
    sft.ReadingObjective(model, image_id=300)(MixedBatch(batch)).total.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_the_vae_goes_along(data: Path, tmp_path: Path) -> None:
    init = flow(tmp_path / "init")
    assert tune(init, data, tmp_path / "out", "--epochs=0.1") == 0
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "out" / "checkpoint" / "vae" / name).read_bytes() == (init / "vae" / name).read_bytes()


def test_a_few_pictures_are_learnt_by_heart(data: Path, tmp_path: Path) -> None:
    init = janus(tmp_path / "init")
    assert tune(init, data, tmp_path / "out", "--epochs=40", "--batch-size=4", "--prompt=Which colour?") == 0
    log = read_log(tmp_path / "out" / "sft" / "log.jsonl")
    assert log[-1]["loss"] < 0.1 < log[0]["loss"]
    assert (tmp_path / "out" / "sft" / "curves.png").is_file()
    engine = load_engine(tmp_path / "out" / "checkpoint", device="cpu", dtype="float32")
    requests = [
        CaptionRequest(Image.new("RGB", (50, 50), colour), "Which colour?", max_new_tokens=12)
        for colour in COLOURS.values()
    ]
    answers = engine.caption(requests)
    assert [said.text.strip() for said in answers if isinstance(said, Caption)] == [f"all {name}" for name in COLOURS]


def test_the_prompt_is_what_the_engine_would_ask(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(sft, "CaptionPairs", spy_on(sft.CaptionPairs, asked))
    for make in (janus, janus_of_old, flow):
        asked.clear()
        init = make(tmp_path / make.__name__)
        assert tune(init, data, tmp_path / f"{make.__name__}-out", "--epochs=0.1", "--prompt=What?") == 0
        engine = load_engine(init, device="cpu")
        row = engine.prepare_caption(CaptionRequest(Image.new("RGB", (9, 9)), "What?"))
        assert asked[0] == row.ids  # type: ignore[union-attr]


def spy_on(pairs: type[sft.CaptionPairs], asked: list[list[int]]) -> type[sft.CaptionPairs]:
    class Spied(pairs):  # type: ignore[misc, valid-type]
        def batch(self, step: int, process: int, num_processes: int) -> object:
            batch = super().batch(step, process, num_processes)
            ids, targets = batch.understanding.ids[0], batch.understanding.targets[0]
            asked.append(ids[: int(np.flatnonzero(targets.numpy() >= 0)[0]) + 1].tolist())
            return batch

    return Spied
