"""config.json in the official and in the Hugging Face layout, to sizes and back.

Source: deepseek-ai/Janus@1daa72f janus/models/modeling_vlm.py; transformers 5.23 models/janus/configuration_janus.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from janus_core.configs import SIGLIP_LARGE_384, VQ_16, JanusConfig, Layout, LlamaConfig, SiglipConfig, VQConfig
from janus_core.errors import ConfigInvalid

# What transformers' LlamaConfig assumes where a published language_config is silent.
_LLAMA_DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}


def read_config(folder: Path) -> tuple[JanusConfig, Layout, dict[str, Any]]:
    """Read a checkpoint's config.json.

    Returns: the sizes, the layout they were written in, and the file as it stands.
    Raises:
        ConfigInvalid: absent, not JSON, of another model (JanusFlow included), or with a part that is not built here.
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
            raise ConfigInvalid(f"{path} is a JanusFlow checkpoint; this version serves Janus and Janus-Pro only")
        if raw.get("model_type") == "multi_modality":
            return _from_official(raw), "official", raw
        if raw.get("model_type") == "janus":
            return _from_hf(raw), "hf", raw
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigInvalid(f"{path} lacks or garbles {error}") from error
    raise ConfigInvalid(f"{path} has model_type {raw.get('model_type')!r}; expected 'multi_modality' or 'janus'")


def _require(what: str, value: object, *accepted: object) -> None:
    if value not in accepted:
        raise ConfigInvalid(f"config.json: {what} is {value!r}; only {' or '.join(map(repr, accepted))} is built here")


def _llama(raw: dict[str, Any]) -> LlamaConfig:
    _require("language model type", raw.get("model_type", "llama"), "llama")
    _require("language model activation", raw.get("hidden_act", "silu"), "silu")
    for bias in ("attention_bias", "mlp_bias"):
        _require(bias, raw.get(bias, False), False)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    _require("rope scaling", rope.get("rope_type", rope.get("type", "default")), "default")
    full = _LLAMA_DEFAULTS | raw
    heads = full["num_attention_heads"]
    return LlamaConfig(
        hidden_size=full["hidden_size"],
        intermediate_size=full["intermediate_size"],
        num_layers=full["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=full.get("num_key_value_heads") or heads,
        head_size=full.get("head_dim") or full["hidden_size"] // heads,
        vocab_size=full["vocab_size"],
        max_positions=full["max_position_embeddings"],
        rope_theta=float(full.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        norm_eps=float(full["rms_norm_eps"]),
    )


def _from_official(raw: dict[str, Any]) -> JanusConfig:
    vision, aligner = raw["vision_config"]["params"], raw["aligner_config"]["params"]
    gen_vision, gen_aligner = raw["gen_vision_config"]["params"], raw["gen_aligner_config"]["params"]
    for section in (aligner, gen_aligner):
        _require("projector_type", section.get("projector_type", "mlp_gelu"), "mlp_gelu")
    for norm in ("pixel_mean", "pixel_std"):
        _require(f"vision_config.{norm}", vision.get(norm), None)
    layers, select = vision.get("layers", SIGLIP_LARGE_384.num_layers), vision.get("select_layer", -1)
    width = vision.get("width", SIGLIP_LARGE_384.width)
    return JanusConfig(
        llama=_llama(raw["language_config"]),
        siglip=SiglipConfig(
            image_size=vision["image_size"],
            patch_size=vision.get("patch_size", SIGLIP_LARGE_384.patch_size),
            width=width,
            num_layers=min(layers, layers + select + 1 if select <= 0 else select),
            num_heads=vision.get("heads", SIGLIP_LARGE_384.num_heads),
            mlp_width=int(width * vision.get("mlp_ratio", 4)),
        ),
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
        _require("hidden_act", section.get("hidden_act", "gelu"), "gelu")
    _require("vision_config.use_qk_norm", vision.get("use_qk_norm", False), False)
    _require("vision_config.attention_bias", vision.get("attention_bias", True), True)
    _require("vision_config.layer_norm_eps", vision.get("layer_norm_eps", 1e-6), 1e-6)
    _require("vq_config.double_latent", vq.get("double_latent", False), False)
    llama = _llama(text)
    _require("vision_config.projection_dim", vision.get("projection_dim", 2048), llama.hidden_size)
    _require("vq_config.image_token_embed_dim", vq.get("image_token_embed_dim", 2048), llama.hidden_size)
    _require("vq_config.projection_dim", vq.get("projection_dim", 2048), llama.hidden_size)
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
            channel_multipliers=tuple(vq.get("channel_multiplier", VQ_16.channel_multipliers)),
            num_res_blocks=vq.get("num_res_blocks", VQ_16.num_res_blocks),
            z_channels=vq.get("latent_channels", VQ_16.z_channels),
        ),
        aligner_depth=vision.get("depth", 2),
        gen_aligner_depth=vq.get("num_hidden_layers", 2),
        gen_head_width=llama.hidden_size,
    )


def to_official(config: JanusConfig, dtype: str) -> dict[str, Any]:
    """config.json of the official layout; `dtype` is a name such as "bfloat16"."""
    if config.vq.channel_multipliers != VQ_16.channel_multipliers or config.vq.num_res_blocks != VQ_16.num_res_blocks:
        raise ConfigInvalid("the official layout cannot spell other VQ levels than those of VQ-16")
    hidden = config.llama.hidden_size

    def part(name: str, cls: str, **params: Any) -> dict[str, Any]:
        return {"cls": cls, "model_type": name, "params": params}

    def projector(name: str, input_dim: int, depth: int) -> dict[str, Any]:
        sizes = {"depth": depth, "input_dim": input_dim, "n_embed": hidden}
        return part(name, "MlpProjector", projector_type="mlp_gelu", **sizes)

    siglip, vq = config.siglip, config.vq
    return {
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "vision_config": part(
            "vision",
            "CLIPVisionTower",
            image_size=siglip.image_size,
            model_name=f"siglip_large_patch{siglip.patch_size}_{siglip.image_size}",
            select_feature="same",
            select_layer=-1,
            width=siglip.width,
            layers=siglip.num_layers,
            heads=siglip.num_heads,
            mlp_ratio=siglip.mlp_width / siglip.width,
            patch_size=siglip.patch_size,
        ),
        "aligner_config": projector("aligner", siglip.width, config.aligner_depth),
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
        "language_config": _llama_json(config.llama),
    }


def to_hf(config: JanusConfig, dtype: str, image_token_id: int) -> dict[str, Any]:
    """config.json of the Hugging Face layout; never tied, since the published text heads are not."""
    hidden, siglip, vq = config.llama.hidden_size, config.siglip, config.vq
    if config.gen_head_width != hidden:
        raise ConfigInvalid(f"the Hugging Face layout cannot spell a gen head of width {config.gen_head_width}")
    return {
        "architectures": ["JanusForConditionalGeneration"],
        "model_type": "janus",
        "dtype": dtype,
        "tie_word_embeddings": False,
        "image_token_id": image_token_id,
        "text_config": _llama_json(config.llama),
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


def _llama_json(llama: LlamaConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": llama.hidden_size,
        "intermediate_size": llama.intermediate_size,
        "num_hidden_layers": llama.num_layers,
        "num_attention_heads": llama.num_heads,
        "num_key_value_heads": llama.num_kv_heads,
        "head_dim": llama.head_size,
        "vocab_size": llama.vocab_size,
        "max_position_embeddings": llama.max_positions,
        "rope_theta": llama.rope_theta,
        "rms_norm_eps": llama.norm_eps,
        "tie_word_embeddings": False,
    }
