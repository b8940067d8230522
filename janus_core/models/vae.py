"""The door to diffusers' AutoencoderKL, whose latents JanusFlow draws. diffusers is imported when it is first needed.

Shapes: B images, C latent channels, H x Y latents; pixels are RGB, nominally [-1, 1].
Source: deepseek-ai/Janus@1daa72f demo/app_janusflow.py:27-29, 141: stabilityai/sdxl-vae, never in float16.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from janus_core.configs import VaeConfig
from janus_core.errors import KeysMismatch, WeightsNotFound


class Vae(nn.Module):
    """Pixels to scaled latents and back."""

    def __init__(self, kl: Any) -> None:
        super().__init__()
        self.kl = kl  # an AutoencoderKL
        self.scaling_factor = float(kl.config.scaling_factor)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def moments(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latents' distribution, each [B, C, H, Y], not scaled."""
        found = self.kl.encode(pixels_BCHW).latent_dist
        return found.mean, found.logvar

    def encode(self, pixels_BCHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Scaled latents [B, C, H, Y]: the likeliest ones, or with a generator drawn ones."""
        latents = self.kl.encode(pixels_BCHW).latent_dist
        chosen: Tensor = latents.mode() if generator is None else latents.sample(generator)
        return chosen * self.scaling_factor

    def decode(self, z_BCHY: Tensor) -> Tensor:
        """Pixels of scaled latents, not clamped."""
        out: Tensor = self.kl.decode(z_BCHY / self.scaling_factor, return_dict=False)[0]
        return out

    def save(self, folder: Path) -> None:
        """Write config.json and diffusion_pytorch_model.safetensors, as diffusers does, but with config.json's rights.

        Other accounts, such as a worker's, could not read weights as safetensors leaves them.
        """
        self.kl.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):
            shutil.copymode(folder / "config.json", weights)


def build_vae(config: VaeConfig, *, sample_size: int = 1024) -> Vae:
    """A VAE with torch's own first weights; `sample_size`, in pixels, is a note for other programs."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(config.block_channels)
    kl = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.num_norm_groups,
        scaling_factor=config.scaling_factor,
        sample_size=sample_size,
    )
    return Vae(kl)


def load_vae(folder: Path, device: torch.device, dtype: torch.dtype) -> Vae:
    """Load a folder that diffusers can read, in eval mode and without gradients.

    Raises:
        WeightsNotFound: there are none, or they cannot be read.
        KeysMismatch: names every tensor that is missing, unexpected or of another shape.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    try:
        kl, report = AutoencoderKL.from_pretrained(
            folder,
            torch_dtype=dtype,
            low_cpu_mem_usage=False,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsNotFound(f"the VAE in {folder} cannot be loaded: {error}") from error
    misshaped = [f"{name} {list(found)} instead of {list(wanted)}" for name, found, wanted in report["mismatched_keys"]]
    if report["missing_keys"] or report["unexpected_keys"] or misshaped:
        raise KeysMismatch(str(folder), report["missing_keys"], report["unexpected_keys"], misshaped)
    kl.register_to_config(_name_or_path="")  # or `save` would write down where it came from
    return Vae(kl).to(device).eval().requires_grad_(False)
