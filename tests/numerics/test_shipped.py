"""The models that come with the package: whole, small enough, as transformers runs them, and able to do their job."""

from __future__ import annotations

import random

import pytest
import torch

from janus_core import Caption, CaptionRequest, Engine, GeneratedImage, GenerateRequest, load_engine, locks, registry
from janus_core.checkpoints.config_json import read_drawing
from janus_core.evaluation.captions import prompt_for
from janus_core.evaluation.evaluate import QUESTION, Plan, evaluate
from janus_core.evaluation.render import render
from janus_core.evaluation.scene import sample_scene
from orchestrator.settings import DEFAULT_MODEL

from .references import load_reference, reference_captions, reference_codes

SHIPPED = [name for name, model in registry.MODELS.items() if model.repo is None]
MOST_BYTES = 12_000_000
NUM_INPUTS = 50
NEW_TOKENS = 64


@pytest.fixture(scope="module", params=SHIPPED)
def engine(request: pytest.FixtureRequest) -> Engine:
    return load_engine(request.param, device="cpu", dtype="float32")


def test_the_default_model_is_shipped() -> None:
    assert DEFAULT_MODEL in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_whole_and_small(name: str) -> None:
    folder = registry.resolve(name)
    assert locks.verify(folder) > 5
    weights = [*folder.glob("*.safetensors"), *folder.glob("vae/*.safetensors")]
    assert 0 < sum(path.stat().st_size for path in weights) <= MOST_BYTES


def test_it_captions_and_draws_its_world(engine: Engine) -> None:
    """A few fresh scenes and prompts; docs/evaluation.md has the figures."""
    done = evaluate(engine, Plan(seed=20261125, scenes=40, prompts=24, images=1))
    assert sum(each.is_right for each in done.seen) >= 34
    assert sum(each.is_right for each in done.held_out) >= 30
    assert sum(each.is_right for each in done.drawn) >= 15


@torch.inference_mode()
def test_transformers_says_and_draws_the_same() -> None:
    """Greedy, on fifty pictures and fifty prompts; those of a seed that training never uses."""
    engine = load_engine("janus-tiny", device="cpu", dtype="float32")
    reference = load_reference(registry.resolve("janus-tiny"), dtype=torch.float32)
    rng = random.Random("shipped")
    scenes = [sample_scene(rng) for _ in range(NUM_INPUTS)]
    questions = [CaptionRequest(render(scene, rng, engine.info.image_size), QUESTION, NEW_TOKENS) for scene in scenes]
    captions = [list(made.token_ids) for made in engine.caption(questions) if isinstance(made, Caption)]
    assert len(captions) == NUM_INPUTS
    assert captions == reference_captions(reference, engine, questions)
    # transformers takes no guidance from generation_config.json
    guidance = read_drawing(registry.resolve("janus-tiny")).guidance
    drawings = [GenerateRequest(prompt_for(scene, rng), temperature=0.0, guidance=guidance) for scene in scenes]
    images = [made for made in engine.generate(drawings) if isinstance(made, GeneratedImage)]
    assert [list(image.codes or ()) for image in images] == reference_codes(reference, engine, drawings)
