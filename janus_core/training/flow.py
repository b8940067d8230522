"""JanusFlow's objective: text as any Janus, pictures by rectified flow, and the alignment with SigLIP.

Shapes: B images, N latent tokens, D width of the language model, W width of the tower, C x H x Y latents.
Source: JanusFlow (arXiv 2411.07975) sections 3.1-3.3; what the paper leaves open is said where it is chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.engine.batcher import lay_out_with_block
from janus_core.models.janusflow import JanusFlow
from janus_core.models.vae import Vae
from janus_core.training.batches import GenerationBatch, MixedBatch
from janus_core.training.losses import CrossEntropy, Losses
from janus_core.training.objectives import ReaderObjective

ALIGNED_LAYER = 6
"""The published model's: hidden states after its 6th of 24 blocks."""


class FlowObjective(ReaderObjective):
    """Cross-entropy + rectified flow + alignment, each with weight 1; all three in every stage."""

    model: JanusFlow

    def __init__(
        self, model: JanusFlow, vae: Vae, *, image_id: int, pad_id: int, aligned_layer: int, time_location: float = 0.0
    ) -> None:
        """What is the run's and no part of the checkpoint; nor is the projector.

        aligned_layer: from 1; the block whose output is aligned.
        time_location: of the logit-normal times, 0 with Stable Diffusion 3; lower for more noise.
        """
        super().__init__(model, image_id=image_id)
        if model.config.grid_side**2 != model.config.siglip.num_patches:
            raise ValueError("latents can be aligned with the tower only where its patches have the same grid")
        self.vae = vae
        self._pad_id, self._aligned_layer, self._time_location = pad_id, aligned_layer, time_location
        hidden, width = model.config.llama.hidden_size, model.config.siglip.width
        self.projector = nn.Sequential(  # three layers; their width and activation are not published
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, width)
        )

    def forward(self, batch: MixedBatch) -> Losses:
        entropy = CrossEntropy()
        self.read(batch, entropy)
        read = entropy.mean() if batch.understanding or batch.text else None
        parts = {} if read is None else dict(read.parts)
        total = torch.zeros((), device=self.model.device) if read is None else read.total
        if batch.generation is not None:
            flow, alignment = self.draw(batch.generation)
            parts |= {"flow": flow.detach(), "alignment": alignment.detach()}
            total = total + flow + alignment
        return Losses(total, parts)

    def draw(self, batch: GenerationBatch) -> tuple[Tensor, Tensor]:
        """mean |v - (x - z0)|^2 at z = t x + (1 - t) z0, and minus the mean cosine of tower and projected states.

        t is logit-normal with scale 1, as with Stable Diffusion 3; the paper gives neither location nor scale.
        """
        with torch.no_grad():
            x_BCHY = self.vae.encode(batch.pixels).float()
            features_BNW = self.model.vision(batch.pixels).float()
        noise_BCHY = torch.randn_like(x_BCHY)
        time_B = (self._time_location + torch.randn(len(x_BCHY), device=x_BCHY.device)).sigmoid()
        share_B = time_B[:, None, None, None]
        velocity_BCHY, states_BND = self._velocity(batch, share_B * x_BCHY + (1 - share_B) * noise_BCHY, 1000 * time_B)
        flow = (velocity_BCHY.float() - (x_BCHY - noise_BCHY)).square().mean()
        projected_BNW = self.projector(states_BND).float()
        return flow, -nn.functional.cosine_similarity(projected_BNW, features_BNW, dim=-1).mean()

    def _velocity(self, batch: GenerationBatch, z_BCHY: Tensor, time_B: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity, and the aligned block's states of the latents [B, N, D].

        As in inference the last prompt token gives its place to the time, and a dropped prompt is masked.
        """
        num_latents = self.model.config.grid_side**2
        ids, lengths = batch.ids.tolist(), batch.lengths.tolist()
        rows = [row[: length - 1] for row, length in zip(ids, lengths, strict=True)]
        laid = lay_out_with_block(rows, batch.dropped.tolist(), 1 + num_latents, self._pad_id, z_BCHY.device)
        states: list[Tensor] = []
        hook = self.model.llama.layers[self._aligned_layer - 1].register_forward_hook(
            lambda _, __, out: states.append(out.unflatten(0, laid.step.positions.shape)[:, -num_latents:])
        )
        try:
            prompts_BPD = self.model.llama.embed_tokens(laid.ids)
            velocity_BCHY = self.model.velocity(z_BCHY, time_B, laid.step, prompt_RPD=prompts_BPD)
        finally:
            hook.remove()
        return velocity_BCHY, states[0]
