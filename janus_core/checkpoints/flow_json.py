"""JanusFlow's config.json, and the config.json of its VAE, to sizes and back.

Source: deepseek-ai/Janus@1daa72f janus/janusflow/models/modeling_vlm.py, uvit.py (what its classes assume where the
file is silent); diffusers models/autoencoders/autoencoder_kl.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from janus_core.checkpoints.parts_json import llama_json, part, read_llama, read_tower, require, tower_json
from janus_core.configs import JanusFlowConfig, UViTConfig, VaeConfig
from janus_core.errors import ConfigInvalid
from janus_core.registry import SDXL_VAE_REPO, VAE_FOLDER


def read_flow(raw: dict[str, Any], folder: Path) -> JanusFlowConfig:
    """Sizes from a config.json that was read, and from vae/config.json in its folder.

    Raises:
        ConfigInvalid: no VAE, parts that do not go together, or a part that is not built here.
        KeyError, TypeError, AttributeError: a part is missing or garbled.
    """
    llama, vae = read_llama(raw["language_config"]), read_vae(folder / VAE_FOLDER)
    siglip = read_tower(raw["vision_und_enc_config"]["params"])
    uvit = _read_uvit(raw["vision_gen_enc_config"]["params"], raw["vision_gen_dec_config"]["params"], llama.hidden_size)
    config = JanusFlowConfig(llama=llama, siglip=siglip, uvit=uvit, vae=vae)
    require("the latent parts' number of channels", uvit.latent_channels, vae.latent_channels)
    if siglip.image_size % vae.downsampling:
        raise ConfigInvalid(f"{folder}: a VAE of factor {vae.downsampling} cannot draw {siglip.image_size} px")
    if config.grid_side * 2**uvit.num_doublings != config.latent_side:
        raise ConfigInvalid(
            f"{folder}: the encoder makes {config.grid_side} cells of {config.latent_side} latents, and the decoder "
            f"{config.grid_side * 2**uvit.num_doublings} latents of them"
        )
    return config


def _read_uvit(encoder: dict[str, Any], decoder: dict[str, Any], hidden_size: int) -> UViTConfig:
    widths, kernel_size, stride = (
        encoder.get("block_out_channels", [768]),
        encoder.get("kernel_size", 7),
        encoder.get("stride", 4),
    )
    padding = encoder.get("padding")
    require("the encoder's first width", widths[0], widths[-1])
    require("the decoder's width", decoder.get("block_out_channels", [768])[-1], widths[-1])
    for section in (encoder, decoder):
        require("the latent parts' hidden_size", section.get("hidden_size", 2048), hidden_size)
        for switch in ("use_bias", "use_mid_block"):
            require(f"the latent parts' {switch}", section.get(switch, True), True)
    latent_channels = encoder.get("input_channels", 3)
    require("the decoder's out_channels", decoder.get("out_channels", 3), latent_channels)
    return UViTConfig(
        latent_channels=latent_channels,
        width=widths[-1],
        read_width=decoder.get("in_channels", 768),
        kernel_size=kernel_size,
        stride=stride,
        padding=kernel_size - stride if padding is None else padding,
        num_encoder_blocks=encoder.get("layers_in_middle", 2),
        num_decoder_blocks=decoder.get("layers_in_middle", 2),
        num_doublings=decoder.get("upsamples", 2),
        encoder_eps=float(encoder.get("norm_eps", 1e-6)),
        decoder_eps=float(decoder.get("norm_eps", 1e-6)),
    )


def read_vae(folder: Path) -> VaeConfig:
    """The sizes of the VAE in a folder. Raises ConfigInvalid: absent, garbled, or not an AutoencoderKL as used here."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        require("vae/config.json: shift_factor", raw.get("shift_factor"), None, 0)
        return VaeConfig(
            latent_channels=raw["latent_channels"],
            block_channels=tuple(raw["block_out_channels"]),
            layers_per_block=raw.get("layers_per_block", 1),
            num_norm_groups=raw.get("norm_num_groups", 32),
            scaling_factor=float(raw.get("scaling_factor", 0.18215)),
        )
    except FileNotFoundError as error:
        raise ConfigInvalid(
            f"{folder} holds no VAE: JanusFlow draws with one that is not part of its published checkpoint. Put "
            f"config.json and diffusion_pytorch_model.safetensors of {SDXL_VAE_REPO} there; `janus models pull` does."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigInvalid(f"{path} is no config of an AutoencoderKL: {error}") from error


def flow_json(config: JanusFlowConfig, dtype: str) -> dict[str, Any]:
    """config.json of the official layout; `dtype` is a name such as "bfloat16"."""
    hidden, uvit = config.llama.hidden_size, config.uvit
    return {
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "vision_und_enc_config": tower_json("vision_und_enc", config.siglip),
        "vision_gen_enc_config": part(
            "vision_gen_enc",
            "ShallowUViTEncoder",
            block_out_channels=[uvit.width],
            hidden_size=hidden,
            input_channels=uvit.latent_channels,
            kernel_size=uvit.kernel_size,
            stride=uvit.stride,
            padding=uvit.padding,
            layers_in_middle=uvit.num_encoder_blocks,
            norm_eps=uvit.encoder_eps,
        ),
        "vision_gen_dec_config": part(
            "vision_gen_dec",
            "ShallowUViTDecoder",
            block_out_channels=[uvit.width],
            hidden_size=hidden,
            in_channels=uvit.read_width,
            out_channels=uvit.latent_channels,
            upsamples=uvit.num_doublings,
            layers_in_middle=uvit.num_decoder_blocks,
            norm_eps=uvit.decoder_eps,
        ),
        "language_config": llama_json(config.llama),
    }
