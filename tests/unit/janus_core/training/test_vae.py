"""The VAE's objective, told by makers of latents whose reconstruction is perfect."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from janus_core.models.vae import Vae
from janus_core.training.vae import VaeObjective

Map = Callable[[Tensor], Tensor]


def exact(encode: Map, decode: Map, kl: float = 0.0) -> Vae:
    """Latents without noise, [B, 3, H, W] as the pictures."""

    def encoded(pixels_BCHW: Tensor) -> SimpleNamespace:
        sample = encode(pixels_BCHW)
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: sample, kl=lambda: torch.tensor([kl])))

    def decoded(latents_BCHW: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        return (decode(latents_BCHW),)

    return cast(Vae, SimpleNamespace(kl=SimpleNamespace(encode=encoded, decode=decoded)))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_latents_that_halve_with_the_picture_cost_nothing(pictures: Tensor) -> None:
    losses = VaeObjective(exact(lambda x: 3 * x + 1, lambda z: (z - 1) / 3))(pictures)
    assert float(losses.total) == pytest.approx(0, abs=1e-5)


def test_latents_that_do_not_cost_though_they_reconstruct(pictures: Tensor) -> None:
    losses = VaeObjective(exact(lambda x: x**3, lambda z: z.sign() * z.abs() ** (1 / 3)))(pictures)
    assert float(losses.parts["absolute"] + losses.parts["squared"]) == pytest.approx(0, abs=1e-5)
    assert float(losses.parts["halved"]) > 0.1
    assert float(losses.total) == pytest.approx(0.5 * float(losses.parts["halved"]), abs=1e-5)


def test_the_divergence_weighs_little(pictures: Tensor) -> None:
    losses = VaeObjective(exact(lambda x: x, lambda z: z, kl=1000.0))(pictures)
    assert float(losses.total) == pytest.approx(0.01)
