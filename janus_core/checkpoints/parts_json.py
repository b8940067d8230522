"""The parts of a config.json that all families share: the Llama, and the official form of the vision tower.

Source: deepseek-ai/Janus@1daa72f janus/models/modeling_vlm.py, clip_encoder.py; transformers
models/llama/configuration_llama.py.
"""

from __future__ import annotations

from typing import Any

from janus_core.configs import SIGLIP_LARGE_384, LlamaConfig, SiglipConfig
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


def require(what: str, value: object, *accepted: object) -> None:
    """Raises ConfigInvalid: `value` is none of those that are built here."""
    if value not in accepted:
        raise ConfigInvalid(f"config.json: {what} is {value!r}; only {' or '.join(map(repr, accepted))} is built here")


def read_llama(raw: dict[str, Any]) -> LlamaConfig:
    """A `language_config` or `text_config`, however partial."""
    require("language model type", raw.get("model_type", "llama"), "llama")
    require("language model activation", raw.get("hidden_act", "silu"), "silu")
    for bias in ("attention_bias", "mlp_bias"):
        require(bias, raw.get(bias, False), False)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    require("rope scaling", rope.get("rope_type", rope.get("type", "default")), "default")
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


def read_tower(params: dict[str, Any]) -> SiglipConfig:
    """The vision tower's `params`; the published ones leave most to class constants."""
    for norm in ("pixel_mean", "pixel_std"):
        require(f"the vision tower's {norm}", params.get(norm), None)
    layers, select = params.get("layers", SIGLIP_LARGE_384.num_layers), params.get("select_layer", -1)
    width = params.get("width", SIGLIP_LARGE_384.width)
    return SiglipConfig(
        image_size=params["image_size"],
        patch_size=params.get("patch_size", SIGLIP_LARGE_384.patch_size),
        width=width,
        num_layers=min(layers, layers + select + 1 if select <= 0 else select),
        num_heads=params.get("heads", SIGLIP_LARGE_384.num_heads),
        mlp_width=int(width * params.get("mlp_ratio", 4)),
    )


def part(name: str, cls: str, **params: Any) -> dict[str, Any]:
    """A section of the official layout."""
    return {"cls": cls, "model_type": name, "params": params}


def tower_json(name: str, siglip: SiglipConfig) -> dict[str, Any]:
    """The vision tower as a section `name` of the official layout."""
    return part(
        name,
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
    )


def llama_json(llama: LlamaConfig) -> dict[str, Any]:
    """A `language_config`, complete."""
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
