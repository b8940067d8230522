"""Checkpoints of random weights, whole and loadable, of any size: for tests, demos and measurements.

    python -m janus_core.checkpoints.random FOLDER [--shape SHAPE] [--layout hf|official]
        [--dtype bfloat16|float32] [--weights safetensors|bin] [--plain] [--seed 0]

The same seed gives the same parameters in either layout and file format. What such a model says means nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.save import MAX_SHARD_BYTES, default_layout, write_description, write_parameters
from janus_core.checkpoints.weights import WeightFormat
from janus_core.configs import (
    JANUS_PRO_1B,
    JANUS_PRO_7B,
    JANUSFLOW_1_3B,
    JanusConfig,
    JanusFlowConfig,
    Layout,
    LlamaConfig,
    ModelConfig,
    SiglipConfig,
    UViTConfig,
    VaeConfig,
    VQConfig,
)
from janus_core.models.vae import build_vae
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings
from janus_core.registry import VAE_FOLDER

_SPECIAL_TOKENS = (chat.BOS, chat.EOS, chat.PAD, chat.IMAGE_START, chat.IMAGE_END, chat.IMAGE)
_EMBEDDINGS = ("embed_tokens.weight", "gen_embed.weight", "codebook", "image_start", "patch_embed.weight", "pos_embed")
_ROLE_TOKENS = (chat.BRACKETED.user, chat.BRACKETED.assistant)


def tiny_config() -> JanusConfig:
    """96 x 96 px, 36 image tokens, width 128: tens of captions a second on one core."""
    return JanusConfig(
        llama=LlamaConfig(
            hidden_size=128,
            intermediate_size=352,
            num_layers=3,
            num_heads=4,
            num_kv_heads=4,
            head_size=32,
            vocab_size=384,
            max_positions=16384,
            rope_theta=10000.0,
            norm_eps=1e-6,
        ),
        siglip=SiglipConfig(image_size=96, patch_size=16, width=64, num_layers=3, num_heads=4, mlp_width=256),
        vq=VQConfig(
            num_codes=512,
            code_size=8,
            base_channels=32,
            channel_multipliers=(1, 1, 2, 2, 4),
            num_res_blocks=2,
            z_channels=32,
        ),
        aligner_depth=2,
        gen_aligner_depth=2,
        gen_head_width=128,
    )


def tiny_flow_config() -> JanusFlowConfig:
    """64 x 64 px by a VAE of factor 4, 16 x 16 latents as 8 x 8 tokens, width 128."""
    tiny = tiny_config()
    return JanusFlowConfig(
        llama=tiny.llama,
        siglip=replace(tiny.siglip, image_size=64),
        uvit=UViTConfig(
            latent_channels=4,
            width=48,
            read_width=48,
            kernel_size=2,
            stride=2,
            padding=0,
            num_encoder_blocks=2,
            num_decoder_blocks=2,
            num_doublings=1,
            encoder_eps=1e-6,
            decoder_eps=1e-6,
        ),
        vae=VaeConfig(
            latent_channels=4,
            block_channels=(16, 32, 32),
            layers_per_block=1,
            num_norm_groups=8,
            scaling_factor=0.5,
        ),
    )


def narrow_config() -> JanusConfig:
    """As many layers as the 1B, of width 64: what a step costs besides arithmetic."""
    tiny = tiny_config()
    llama = replace(tiny.llama, hidden_size=64, intermediate_size=176, num_layers=24, num_heads=4, head_size=16)
    return replace(tiny, llama=replace(llama, num_kv_heads=4), gen_head_width=64)


SHAPES: dict[str, ModelConfig] = {
    "tiny": tiny_config(),
    "narrow": narrow_config(),
    "tiny-flow": tiny_flow_config(),
    "janus-pro-1b": JANUS_PRO_1B,
    "janus-pro-7b": JANUS_PRO_7B,
    "janusflow-1.3b": JANUSFLOW_1_3B,
}


def write_random_checkpoint(
    folder: str | Path,
    config: ModelConfig | None = None,
    *,
    layout: Layout | None = None,
    dtype: torch.dtype | str = torch.bfloat16,
    seed: int = 0,
    weights: WeightFormat = "safetensors",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    bracketed: bool | None = None,
) -> Path:
    """Write config, tokenizer, image settings and weights; the largest tensor is all that is held in memory (a shard
    for .bin).

    Args:
        config: None is `tiny_config()`.
        layout: None is `default_layout`.
        bracketed: whether the tokenizer knows <|User|>, as Janus-Pro's does; None: all but JanusFlow's do.
    """
    folder, config = Path(folder), config or tiny_config()
    layout, is_flow = layout or default_layout(config), isinstance(config, JanusFlowConfig)
    stored = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(config, JanusFlowConfig):
        _write_vae(folder / VAE_FOLDER, config, stored, seed)
    roles = _ROLE_TOKENS if (not is_flow if bracketed is None else bracketed) else ()
    drawn = (chat.IMAGE_DRAWN,) if is_flow else ()
    _write_tokenizer(folder, config.llama.vocab_size, (*_SPECIAL_TOKENS, *drawn, *roles))
    half = (0.5, 0.5, 0.5)
    images = ImageSettings(config.siglip.image_size, 14, half, half, 1 / 255, True)
    write_description(folder, config, images, layout, stored)
    shapes = {name: tuple(parameter.shape) for name, parameter in build_empty(config).named_parameters()}

    def get(name: str) -> Tensor:
        return _random_parameter(name, shapes[name], seed).to(stored)

    write_parameters(folder, config, shapes, get, layout, stored, weights, max_shard_bytes)
    return folder


def _random_parameter(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Scaled so that signals neither fade nor burst; depends on the seed and the name alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    values = torch.empty(shape).normal_(generator=generator)
    if len(shape) > 1:
        return values if name.endswith(_EMBEDDINGS) else values.mul_(1 / math.sqrt(math.prod(shape[1:])))
    return values.mul_(0.1).add_(1) if name.endswith("weight") else values.mul_(0.1)


@torch.no_grad()
def _write_vae(folder: Path, config: JanusFlowConfig, dtype: torch.dtype, seed: int) -> None:
    vae = build_vae(config.vae, sample_size=config.siglip.image_size)
    for name, parameter in vae.named_parameters():
        parameter.copy_(_random_parameter(f"vae.{name}", tuple(parameter.shape), seed))
    vae.to(dtype).save(folder)


def _write_tokenizer(folder: Path, vocab_size: int, specials: Sequence[str]) -> None:
    """A byte-level tokenizer without merges: 256 bytes, then the special tokens."""
    if vocab_size < 256 + len(specials):
        raise ValueError(f"a vocabulary of {vocab_size} has no room for 256 bytes and {len(specials)} special tokens")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256 + index, "content": token, **flags} for index, token in enumerate(specials)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": _begin_with_bos(256),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: index for index, character in enumerate(_byte_characters())},
            "merges": [],
        },
    }
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": chat.BOS,
        "eos_token": chat.EOS,
        "pad_token": chat.PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": JANUS_PRO_1B.llama.max_positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    tokens = {key: settings[key] for key in ("bos_token", "eos_token", "pad_token")}
    for name, content in (("tokenizer", tokenizer), ("tokenizer_config", settings), ("special_tokens_map", tokens)):
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _begin_with_bos(bos_id: int) -> dict[str, Any]:
    """As published tokenizers do it when they are called by themselves; ours adds it either way."""
    begin, text = {"SpecialToken": {"id": chat.BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    specials = {chat.BOS: {"id": chat.BOS, "ids": [bos_id], "tokens": [chat.BOS]}}
    pair = [begin, text, second]
    return {"type": "TemplateProcessing", "single": [begin, text], "pair": pair, "special_tokens": specials}


def _byte_characters() -> list[str]:
    """The characters that byte-level BPE writes bytes with: printable ones as themselves, others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m janus_core.checkpoints.random", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--layout", choices=("hf", "official"), help="JanusFlow has the official one alone")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--weights", choices=("safetensors", "bin"), default="safetensors")
    parser.add_argument(
        "--plain", action="store_true", help="a tokenizer without <|User|>, as Janus-1.3B's and JanusFlow's"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    write_random_checkpoint(
        options.folder,
        SHAPES[options.shape],
        layout=options.layout,
        dtype=options.dtype,
        seed=options.seed,
        weights=options.weights,
        bracketed=False if options.plain else None,
    )


if __name__ == "__main__":
    main()
