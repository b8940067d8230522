"""config.json in the official and in the Hugging Face layout, to sizes and back.

Source: deepseek-ai/Janus@1daa72f janus/models/modeling_vlm.py; transformers 5.23 models/janus/configuration_janus.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janus_core.checkpoints.flow_json import flow_json, read_flow
from janus_core.checkpoints.parts_json import llama_json, part, read_llama, read_tower, require, tower_json
from janus_core.configs import (
    SIGLIP_LARGE_384,
    VQ_16,
    JanusConfig,
    JanusFlowConfig,
    Layout,
    ModelConfig,
    SiglipConfig,
    VQConfig,
)
from janus_core.errors import ConfigInvalid


def read_config(folder: Path) -> tuple[ModelConfig, Layout, dict[str, Any]]:
    """Read a checkpoint's config.json.

    Returns: the sizes, the layout they were written in, and the file as it stands.
    Raises:
        ConfigInvalid: absent, not JSON, of another model, or with a part that is not built here; a JanusFlow has no
            vae/config.json.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigInvalid(f"{folder} has no config.json, so it is no checkpoint folder") from error
    except ValueError as error:
        raise ConfigInvalid(f"{path} is not JSON: {error}") from error
    try:
        if "vision_gen_enc_config" in raw:
            return read_flow(raw, folder), "official", raw
        if raw.get("model_type") == "multi_modality":
            return _from_official(raw), "official", raw
        if raw.get("model_type") == "janus":
            return _from_hf(raw), "hf", raw
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigInvalid(f"{path} lacks or garbles {error}") from error
    raise ConfigInvalid(f"{path} has model_type {raw.get('model_type')!r}; expected 'multi_modality' or 'janus'")


@dataclass(frozen=True)
class Drawing:
    """How a model draws where nobody says; None is what is usual with its family."""

    guidance: float | None = None
    temperature: float | None = None


USUAL = Drawing()


def read_drawing(folder: Path) -> Drawing:
    """`guidance_scale` and `temperature` of the folder's generation_config.json, where it has one.

    Raises ConfigInvalid: the file is no JSON object, or one of them is no number of at least 0.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return USUAL
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        said = {name: raw.get(name) for name in ("guidance_scale", "temperature")}
        numbers = {name: None if value is None else float(value) for name, value in said.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigInvalid(f"{path} is garbled: {error}") from error
    for name, number in numbers.items():
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise ConfigInvalid(f"{path} has {name} {number}; expected a number of at least 0")
    return Drawing(numbers["guidance_scale"], numbers["temperature"])


def _from_official(raw: dict[str, Any]) -> JanusConfig:
    aligner, gen_aligner = raw["aligner_config"]["params"], raw["gen_aligner_config"]["params"]
    gen_vision = raw["gen_vision_config"]["params"]
    for section in (aligner, gen_aligner):
        require("projector_type", section.get("projector_type", "mlp_gelu"), "mlp_gelu")
    return JanusConfig(
        llama=read_llama(raw["language_config"]),
        siglip=read_tower(raw["vision_config"]["params"]),
        vq=VQConfig(
            num_codes=gen_vision["image_token_size"],
            code_size=gen_vision["n_embed"],
            base_channels=gen_vision.get("base_channels", VQ_16.base_channels),
            channel_multipliers=VQ_16.channel_multipliers,
            num_res_blocks=VQ_16.num_res_blocks,
            z_channels=gen_vision.get("z_channels", VQ_16.z_channels),
        ),
        aligner_depth=aligner.get("depth", 1),
        gen_aligner_depth=gen_aligner.get("depth", 1),
        gen_head_width=raw["gen_head_config"]["params"]["image_token_embed"],
    )


def _from_hf(raw: dict[str, Any]) -> JanusConfig:
    text, vision, vq = raw["text_config"], raw.get("vision_config") or {}, raw.get("vq_config") or {}
    for section in (vision, vq):
        require("hidden_act", section.get("hidden_act", "gelu"), "gelu")
    levels = tuple(vq.get("channel_multiplier", VQ_16.channel_multipliers))
    num_res_blocks = vq.get("num_res_blocks", VQ_16.num_res_blocks)
    if not num_res_blocks:  # then nothing in an encoder level could change the width
        require("channel_multiplier of levels without residual blocks", levels, (1,) * len(levels))
    require("vision_config.use_qk_norm", vision.get("use_qk_norm", False), False)
    require("vision_config.attention_bias", vision.get("attention_bias", True), True)
    require("vision_config.layer_norm_eps", vision.get("layer_norm_eps", 1e-6), 1e-6)
    require("vq_config.double_latent", vq.get("double_latent", False), False)
    llama = read_llama(text)
    require("vision_config.projection_dim", vision.get("projection_dim", 2048), llama.hidden_size)
    require("vq_config.image_token_embed_dim", vq.get("image_token_embed_dim", 2048), llama.hidden_size)
    require("vq_config.projection_dim", vq.get("projection_dim", 2048), llama.hidden_size)
    width = vision.get("hidden_size", SIGLIP_LARGE_384.width)
    return JanusConfig(
        llama=llama,
        siglip=SiglipConfig(
            image_size=vision.get("image_size", SIGLIP_LARGE_384.image_size),
            patch_size=vision.get("patch_size", SIGLIP_LARGE_384.patch_size),
            width=width,
            num_layers=vision.get("num_hidden_layers", SIGLIP_LARGE_384.num_layers),
            num_heads=vision.get("num_attention_heads", SIGLIP_LARGE_384.num_heads),
            mlp_width=int(width * vision.get("mlp_ratio", 4)),
        ),
        vq=VQConfig(
            num_codes=vq.get("num_embeddings", VQ_16.num_codes),
            code_size=vq.get("embed_dim", VQ_16.code_size),
            base_channels=vq.get("base_channels", VQ_16.base_channels),
            channel_multipliers=levels,
            num_res_blocks=num_res_blocks,
            z_channels=vq.get("latent_channels", VQ_16.z_channels),
        ),
        aligner_depth=vision.get("depth", 2),
        gen_aligner_depth=vq.get("num_hidden_layers", 2),
        gen_head_width=llama.hidden_size,
    )


def to_official(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """config.json of the official layout; `dtype` is a name such as "bfloat16"."""
    if isinstance(config, JanusFlowConfig):
        return flow_json(config, dtype)
    if config.vq.channel_multipliers != VQ_16.channel_multipliers or config.vq.num_res_blocks != VQ_16.num_res_blocks:
        raise ConfigInvalid("the official layout cannot spell other VQ levels than those of VQ-16")
    hidden = config.llama.hidden_size

    def projector(name: str, input_dim: int, depth: int) -> dict[str, Any]:
        sizes = {"depth": depth, "input_dim": input_dim, "n_embed": hidden}
        return part(name, "MlpProjector", projector_type="mlp_gelu", **sizes)

    vq = config.vq
    return {
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "vision_config": tower_json("vision", config.siglip),
        "aligner_config": projector("aligner", config.siglip.width, config.aligner_depth),
        "gen_vision_config": part(
            "gen_vision",
            "VQ-16",
            image_token_size=vq.num_codes,
            n_embed=vq.code_size,
            base_channels=vq.base_channels,
            z_channels=vq.z_channels,
        ),
        "gen_aligner_config": projector("gen_aligner", vq.code_size, config.gen_aligner_depth),
        "gen_head_config": part(
            "gen_head",
            "vision_head",
            image_token_embed=config.gen_head_width,
            image_token_size=vq.num_codes,
            n_embed=hidden,
        ),
        "language_config": llama_json(config.llama),
    }


def to_hf(config: ModelConfig, dtype: str, image_token_id: int) -> dict[str, Any]:
    """config.json of the Hugging Face layout; never tied, since the published text heads are not."""
    if isinstance(config, JanusFlowConfig):
        raise ConfigInvalid("transformers has no JanusFlow; write it in the official layout")
    hidden, siglip, vq = config.llama.hidden_size, config.siglip, config.vq
    if config.gen_head_width != hidden:
        raise ConfigInvalid(f"the Hugging Face layout cannot spell a gen head of width {config.gen_head_width}")
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "dtype": dtype,
        "tie_word_embeddings": False,
        "image_token_id": image_token_id,
        "text_config": llama_json(config.llama),
        "vision_config": {
            "model_type": "janus_vision_model",
            "hidden_size": siglip.width,
            "num_hidden_layers": siglip.num_layers,
            "num_attention_heads": siglip.num_heads,
            "image_size": siglip.image_size,
            "patch_size": siglip.patch_size,
            "hidden_act": "gelu",
            "mlp_ratio": siglip.mlp_width / siglip.width,
            "projection_dim": hidden,
            "depth": config.aligner_depth,
            "num_image_tokens": siglip.num_patches,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            "embed_dim": vq.code_size,
            "num_embeddings": vq.num_codes,
            "latent_channels": vq.z_channels,
            "base_channels": vq.base_channels,
            "channel_multiplier": list(vq.channel_multipliers),
            "num_res_blocks": vq.num_res_blocks,
            "num_patches": config.grid_side,
            "projection_dim": hidden,
            "num_hidden_layers": config.gen_aligner_depth,
            "hidden_act": "gelu",
            "image_token_embed_dim": hidden,
        },
    }
