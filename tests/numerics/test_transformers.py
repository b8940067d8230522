"""Against transformers' own Janus, of another size than the golden one, through checkpoints in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from janus_core import Caption, CaptionRequest, Engine, GeneratedImage, GenerateRequest, Rejected, load_engine
from janus_core.checkpoints.random import write_random_checkpoint
from janus_core.checkpoints.save import save_checkpoint
from janus_core.configs import JanusConfig, LlamaConfig, SiglipConfig, VQConfig
from janus_core.processing import chat

from .conftest import GOLDEN
from .references import load_reference, reference_captions, reference_codes

NEW_TOKENS = 12


def other_config(num_kv_heads: int) -> JanusConfig:
    """No two sizes alike, so that a swapped pair cannot hide."""
    return JanusConfig(
        llama=LlamaConfig(
            hidden_size=96,
            intermediate_size=200,
            num_layers=2,
            num_heads=6,
            num_kv_heads=num_kv_heads,
            head_size=16,
            vocab_size=300,
            max_positions=2048,
            rope_theta=5000.0,
            norm_eps=1e-5,
        ),
        siglip=SiglipConfig(image_size=48, patch_size=16, width=80, num_layers=3, num_heads=5, mlp_width=160),
        vq=VQConfig(
            num_codes=70,
            code_size=8,
            base_channels=32,
            channel_multipliers=(1, 1, 2, 2, 4),
            num_res_blocks=2,
            z_channels=64,
        ),
        aligner_depth=2,
        gen_aligner_depth=3,
        gen_head_width=96,
    )


@pytest.fixture(scope="module", params=[6, 2], ids=["heads-alike", "grouped-heads"])
def config(request: pytest.FixtureRequest) -> JanusConfig:
    return other_config(request.param)


@pytest.fixture(scope="module")
def ours(config: JanusConfig, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("ours") / "other"
    write_random_checkpoint(folder, config, layout="official", dtype=torch.float32, seed=5)
    return load_engine(folder, device="cpu")


def assert_equal_answers(engine: Engine, reference: Any) -> None:
    shapes = [(40, 60), (64, 48), (48, 48)]
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in shapes]
    questions = [CaptionRequest(p, "What is it?" + "?" * n, NEW_TOKENS) for n, p in enumerate(pictures)]
    questions.append(CaptionRequest(pictures[:2], f"{chat.IMAGE} or {chat.IMAGE}?", NEW_TOKENS))
    captions = engine.caption(questions)
    got = [list(caption.token_ids) for caption in captions if isinstance(caption, Caption)]
    assert got == reference_captions(reference, engine, questions)
    drawings = [GenerateRequest(prompt, temperature=0.0, guidance=3.0) for prompt in ("a cat", "a longer prompt")]
    images = engine.generate(drawings)
    codes = [list(image.codes or ()) for image in images if isinstance(image, GeneratedImage)]
    assert codes == reference_codes(reference, engine, drawings)
    pixels = reference.decode_image_tokens(torch.tensor(codes)).permute(0, 3, 1, 2)
    torch.testing.assert_close(engine.model.decode_codes(torch.tensor(codes)), pixels, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_saved_by_us_and_loaded_by_transformers(ours: Engine, config: JanusConfig, tmp_path: Path) -> None:
    source = tmp_path / "official"
    write_random_checkpoint(source, config, layout="official", dtype=torch.float32, seed=5)
    save_checkpoint(ours.model, tmp_path / "hf", processing_from=source, max_shard_bytes=2_000_000)
    assert (tmp_path / "hf" / "model.safetensors.index.json").is_file()
    assert_equal_answers(ours, load_reference(tmp_path / "hf"))


@torch.inference_mode()
def test_saved_by_transformers_and_loaded_by_us(ours: Engine, config: JanusConfig, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    write_random_checkpoint(source, config, layout="hf", dtype=torch.float32, seed=6)
    reference = load_reference(source)
    with torch.no_grad():  # weights that we never wrote
        for parameter in reference.parameters():
            parameter.mul_(1.01)
    reference.save_pretrained(tmp_path / "theirs")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / "theirs" / name).write_bytes((source / name).read_bytes())
    assert_equal_answers(load_engine(tmp_path / "theirs", device="cpu"), reference)


def test_transformers_processor_makes_the_same_ids(ours: Engine, config: JanusConfig, tmp_path: Path) -> None:
    """Its pixels differ for some aspect ratios: it rounds the new side where the official code truncates."""
    from transformers import JanusProcessor

    for source in (write_random_checkpoint(tmp_path / "random", config, layout="official"), GOLDEN / "model"):
        saved = tmp_path / "saved" / source.name
        save_checkpoint(load_engine(source, device="cpu").model, saved, processing_from=source)
        engine = load_engine(saved, device="cpu")
        processor = JanusProcessor.from_pretrained(saved)
        picture = Image.effect_noise((48, 48), 90).convert("RGB")
        row = engine.prepare_caption(CaptionRequest(picture, "What is it?"))
        assert not isinstance(row, Rejected)
        prompt = chat.caption_prompt("What is it?", engine.roles).removeprefix(f"{chat.SYSTEM_PROMPT}\n\n")
        inputs = processor(text=prompt, images=[picture], return_tensors="pt")
        assert inputs["input_ids"][0].tolist() == row.ids


@torch.inference_mode()
def test_tied_text_head_is_the_embedding(config: JanusConfig, tmp_path: Path) -> None:
    """A freshly built transformers model shares its text head, and saves a checkpoint without one."""
    from transformers import AutoConfig, JanusForConditionalGeneration

    write_random_checkpoint(tmp_path / "hf", config, layout="hf", dtype=torch.float32)
    settings = AutoConfig.from_pretrained(tmp_path / "hf")
    settings.tie_word_embeddings = True
    JanusForConditionalGeneration(settings).save_pretrained(tmp_path / "tied")
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (tmp_path / "tied" / name).write_bytes((tmp_path / "hf" / name).read_bytes())
    model = load_engine(tmp_path / "tied", device="cpu").model
    assert torch.equal(model.text_head.weight, model.llama.embed_tokens.weight)
