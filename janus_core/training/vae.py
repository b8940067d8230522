"""A small VAE's own training: reconstruction, also at half the size, and a slight pull towards a normal distribution.

Source: the first stage of latent diffusion (arXiv 2112.10752), without its discriminator; scale equivariance
(arXiv 2502.14831), which makes latents easier to learn to draw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from janus_core.models.vae import Vae
from janus_core.training.losses import Losses, reconstruction

_KL_WEIGHT = 1e-5
_HALVED_WEIGHT = 0.5


class VaeObjective(nn.Module):
    """mean |x - x'| + mean (x - x')^2 with heavier objects, half of the same of halved latents, a little KL divergence.

    Halved latents are to become the halved picture. The KL divergence is summed over an image's latents.
    """

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels_BCHW: Tensor) -> Losses:
        latents: Any = self.vae.kl.encode(pixels_BCHW).latent_dist
        drawn_BCHY = latents.sample()
        absolute, squared = self._rebuild(drawn_BCHY, pixels_BCHW)
        halved = sum(self._rebuild(_halve(drawn_BCHY), _halve(pixels_BCHW)))
        kl = latents.kl().float().mean()
        parts = {"absolute": absolute, "squared": squared, "halved": halved, "kl": kl}
        total = absolute + squared + _HALVED_WEIGHT * halved + _KL_WEIGHT * kl
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    def _rebuild(self, latents_BCHY: Tensor, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        return reconstruction(self.vae.kl.decode(latents_BCHY, return_dict=False)[0], pixels_BCHW)


def _halve(x_BCHW: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(x_BCHW, 2)


@torch.no_grad()
def measure_scale(vae: Vae, pixels_BCHW: Tensor) -> float:
    """What latents are multiplied by to have a standard deviation of 1; also set in the VAE and its config."""
    scale = 1 / float(vae.moments(pixels_BCHW)[0].std())
    vae.scaling_factor = scale
    vae.kl.register_to_config(scaling_factor=scale)
    return scale
