"""A small VAE's own training: reconstruction and a slight pull of the latents towards a normal distribution.

Source: the first stage of latent diffusion (arXiv 2112.10752), with its KL weight and without its discriminator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from janus_core.models.vae import Vae
from janus_core.training.losses import Losses, reconstruction

_KL_WEIGHT = 1e-6


class VaeObjective(nn.Module):
    """mean |x - x'| + mean (x - x')^2 with heavier objects + a little KL divergence, summed over an image's latents."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels_BCHW: Tensor) -> Losses:
        latents: Any = self.vae.kl.encode(pixels_BCHW).latent_dist
        absolute, squared = reconstruction(self.vae.kl.decode(latents.sample(), return_dict=False)[0], pixels_BCHW)
        kl = latents.kl().float().mean()
        parts = {"absolute": absolute.detach(), "squared": squared.detach(), "kl": kl.detach()}
        return Losses(absolute + squared + _KL_WEIGHT * kl, parts)


@torch.no_grad()
def measure_scale(vae: Vae, pixels_BCHW: Tensor) -> float:
    """What latents are multiplied by to have a standard deviation of 1; also set in the VAE and its config."""
    scale = 1 / float(vae.moments(pixels_BCHW)[0].std())
    vae.scaling_factor = scale
    vae.kl.register_to_config(scaling_factor=scale)
    return scale
