"""Janus-Pro-1B in both layouts and JanusFlow-1.3B at full size, with random weights: written, loaded and run.

`make full-size`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from janus_core.checkpoints.weights import find_weight_files, list_tensors

from .conftest import published_keys

pytestmark = [pytest.mark.full_size, pytest.mark.timeout(1800)]

LOAD_AND_RUN = """
import json, sys, time
import torch, transformers
from PIL import Image
from janus_core import CaptionRequest, GenerateRequest, load_engine
from janus_core.engine import engine as _
from transformers import PreTrainedTokenizerFast

folder, draws = sys.argv[1], sys.argv[2:] == ["draw"]
if draws:
    from diffusers.models.autoencoders import autoencoder_kl

def kilobytes(field):  # of this process alone; ru_maxrss may be inherited from the one that started it
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1])

torch.set_num_threads(2)
baseline = kilobytes("VmRSS")
start = time.monotonic()
engine = load_engine(folder, device="cpu")
loaded, load_seconds = kilobytes("VmHWM"), time.monotonic() - start
start = time.monotonic()
picture = Image.effect_noise((640, 400), 80)
(caption,) = engine.caption([CaptionRequest(picture, "Describe this image.", max_new_tokens=4)])
caption_seconds, caption_peak = time.monotonic() - start, kilobytes("VmHWM")
start = time.monotonic()
drawn = engine.generate([GenerateRequest("a red bicycle", steps=2)]) if draws else []
print(json.dumps({
    "load_bytes": (loaded - baseline) * 1024,
    "caption_bytes": (caption_peak - baseline) * 1024,
    "draw_bytes": (kilobytes("VmHWM") - baseline) * 1024,
    "load_seconds": load_seconds,
    "caption_seconds": caption_seconds,
    "draw_seconds": time.monotonic() - start,
    "drawn": [[*result.image.size, len(result.image.getcolors(1 << 20))] for result in drawn],
    "token_ids": caption.token_ids,
    "dtype": engine.info.dtype,
    "parameters": engine.info.parameters,
}))
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("full-size")
    yield folder
    shutil.rmtree(folder)


def run_python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_load_and_caption_within_memory(space: Path) -> None:
    answers = []
    for layout, weights, keys in (("hf", "safetensors", "hf_1b"), ("official", "bin", "original_1b")):
        folder = space / layout
        options = ["--shape", "janus-pro-1b", "--layout", layout, "--weights", weights, "--seed", "3"]
        run_python("-m", "janus_core.checkpoints.random", str(folder), *options)
        (path,) = find_weight_files(folder)
        assert list_tensors(path) == published_keys(keys)
        size = path.stat().st_size
        assert 4.1e9 < size < 4.2e9
        report = json.loads(run_python("-c", LOAD_AND_RUN, str(folder)))
        shares = {name: report[name] / size for name in ("load_bytes", "caption_bytes")}
        print(
            f"\n{layout} {weights}: {size / 1e9:.2f} GB, loaded in {report['load_seconds']:.1f} s with "
            f"{shares['load_bytes']:.3f} x its size at most, captioned in {report['caption_seconds']:.1f} s with "
            f"{shares['caption_bytes']:.3f} x"
        )
        assert shares["load_bytes"] < 1.3
        assert report["dtype"] == "bfloat16"
        answers.append(report["token_ids"])
        shutil.rmtree(folder)
    assert answers[0] == answers[1], "the same weights in two layouts"


def test_janusflow_draws_within_memory(space: Path) -> None:
    """Two steps of a guided image through the whole model and a VAE of SDXL's shape."""
    folder = space / "flow"
    run_python("-m", "janus_core.checkpoints.random", str(folder), "--shape", "janusflow-1.3b", "--seed", "3")
    (path,) = find_weight_files(folder)
    assert list_tensors(path) == published_keys("original_flow")
    size = path.stat().st_size + (folder / "vae" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert 4.2e9 < size < 4.3e9
    report = json.loads(run_python("-c", LOAD_AND_RUN, str(folder), "draw"))
    shares = {name: report[f"{name}_bytes"] / size for name in ("load", "caption", "draw")}
    print(
        f"\nJanusFlow with its VAE: {size / 1e9:.2f} GB, loaded in {report['load_seconds']:.1f} s with "
        f"{shares['load']:.3f} x its size at most, captioned in {report['caption_seconds']:.1f} s with "
        f"{shares['caption']:.3f} x, drawn by 2 steps in {report['draw_seconds']:.1f} s with {shares['draw']:.3f} x"
    )
    assert shares["load"] < 1.3
    assert (report["dtype"], report["parameters"]) == ("bfloat16", 2_033_772_304)
    ((width, height, num_colours),) = report["drawn"]
    assert (width, height) == (384, 384)
    assert num_colours > 100, "not one flat colour, as from latents that burst or faded"
    shutil.rmtree(folder)
