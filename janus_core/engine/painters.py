"""How a family draws: a request to a row, and what the model made of rows to pictures.

Shapes: B images, N codes, C x H x Y latents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from janus_core.checkpoints.config_json import Drawing, read_drawing
from janus_core.checkpoints.load import Model
from janus_core.engine.requests import GeneratedImage, GenerateRequest, Rejected
from janus_core.engine.rows import FlowRow, ImageRow
from janus_core.engine.sampling import Sampling
from janus_core.engine.solvers import plan
from janus_core.models.janus import Janus
from janus_core.models.janusflow import JanusFlow
from janus_core.models.vae import Vae, load_vae
from janus_core.processing.images import to_images
from janus_core.registry import VAE_FOLDER

DECODE_IMAGES = 4
"""Images per VQ or VAE decode: a full-resolution activation is 36 or 72 MiB an image in bf16, and several are alive."""

TOKEN_GUIDANCE, TOKEN_TEMPERATURE = 5.0, 1.0
"""As in the published generation_inference.py."""
FLOW_GUIDANCE, FLOW_STEPS = 2.0, 30
"""As in the published README."""

Row = TypeVar("Row", ImageRow, FlowRow)


class Painter(ABC, Generic[Row]):
    """num_positions: of an image behind its prompt, whose last token is not counted.

    max_decoded: how many images are at most turned into pictures together.
    """

    num_positions: int
    max_decoded: int

    @abstractmethod
    def prepare(self, ids: list[int], request: GenerateRequest) -> Row | Rejected:
        """A request without other faults, with the ids of its prompt."""

    @abstractmethod
    def decode(self, rows: Sequence[Row]) -> list[GeneratedImage]:
        """The pictures of a few drawn rows."""


class TokenPainter(Painter[ImageRow]):
    """Janus and Janus-Pro."""

    def __init__(self, model: Janus, own: Drawing) -> None:
        """own: the checkpoint's way, for requests that leave it out."""
        self._model = model
        self._guidance = TOKEN_GUIDANCE if own.guidance is None else own.guidance
        self._temperature = TOKEN_TEMPERATURE if own.temperature is None else own.temperature
        self.num_positions = model.config.num_codes_per_image
        self.max_decoded = DECODE_IMAGES

    def prepare(self, ids: list[int], request: GenerateRequest) -> ImageRow | Rejected:
        if request.noise is not None:
            return Rejected(
                "noise_unsupported", "`noise` is for JanusFlow. Leave it out; `seed` fixes this model's image."
            )
        guidance = self._guidance if request.guidance is None else float(request.guidance)
        temperature = self._temperature if request.temperature is None else float(request.temperature)
        sampling = Sampling(temperature, float(request.top_p), request.top_k, request.seed)
        return ImageRow(ids, guidance, sampling, self.num_positions)

    def decode(self, rows: Sequence[ImageRow]) -> list[GeneratedImage]:
        codes_BN = torch.stack([row.codes for row in rows if row.codes is not None])
        images = to_images(self._model.decode_codes(codes_BN))
        return [GeneratedImage(image, tuple(codes)) for image, codes in zip(images, codes_BN.tolist(), strict=True)]


class FlowPainter(Painter[FlowRow]):
    """JanusFlow, whose pictures a VAE of its own decodes; on the CPU one at a time, see FlowLane."""

    def __init__(self, model: JanusFlow, vae: Vae, own: Drawing) -> None:
        """own: the checkpoint's way, for requests that leave it out."""
        self._model, self.vae = model, vae
        self._guidance = FLOW_GUIDANCE if own.guidance is None else own.guidance
        self.num_positions = 1 + model.config.num_latent_tokens
        self.max_decoded = 1 if model.device.type == "cpu" else DECODE_IMAGES

    def prepare(self, ids: list[int], request: GenerateRequest) -> FlowRow | Rejected:
        shape = self._model.config.latent_shape
        noise = draw_noise(request.seed, shape) if request.noise is None else _as_floats(request.noise)
        if noise is None or noise.shape != shape or not noise.isfinite().all():
            found = "not an array of numbers" if noise is None else f"of shape {list(noise.shape)}"
            return Rejected("noise_invalid", f"`noise` is {found}; this model begins with finite {list(shape)}.")
        guidance = self._guidance if request.guidance is None else float(request.guidance)
        moves = plan(request.solver, request.steps or FLOW_STEPS)
        return FlowRow(ids[:-1], guidance, moves, noise)

    def decode(self, rows: Sequence[FlowRow]) -> list[GeneratedImage]:
        latents_BCHY = torch.stack([row.latents for row in rows if row.latents is not None])
        return [GeneratedImage(image, None) for image in to_images(self.vae.decode(latents_BCHY))]


def choose_painter(folder: Path, model: Model) -> TokenPainter | FlowPainter:
    """The painter of a model that was loaded from `folder`, where JanusFlow's VAE lies beside it."""
    own = read_drawing(folder)
    if isinstance(model, Janus):
        return TokenPainter(model, own)
    vae = load_vae(folder / VAE_FOLDER, model.device, model.dtype)
    return FlowPainter(model, vae, own)


def draw_noise(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """Standard normal float32 [C, H, Y], in one draw from a CPU generator of this seed, whatever device and dtype."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def _as_floats(noise: object) -> Tensor | None:
    """Float32 on the CPU, or None for what is no array."""
    try:
        return torch.as_tensor(noise).detach().to("cpu", torch.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
