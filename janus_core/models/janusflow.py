"""JanusFlow: one Llama that reads SigLIP features and writes text, or reads noisy latents and says where they flow.

Shapes: B images, R rows (one or several to an image), P prompt tokens, N latent tokens, T = 1 + N with the time,
D width of the language model, C x H x Y latents, h x y grid cells (N = h * y, row by row).
Source: deepseek-ai/Janus@1daa72f janus/janusflow/models/modeling_vlm.py; the order of things in `velocity` is that of
demo/app_janusflow.py:107-135.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.configs import JanusFlowConfig
from janus_core.engine.cache import KVCache, Step
from janus_core.models.layers import Linear, RMSNorm
from janus_core.models.llama import Llama
from janus_core.models.projectors import Projector
from janus_core.models.reader import Reader
from janus_core.models.siglip import Siglip
from janus_core.models.uvit import UViTDecoder, UViTEncoder


class JanusFlow(Reader):
    def __init__(self, config: JanusFlowConfig) -> None:
        super().__init__()
        self.config = config
        hidden, uvit = config.llama.hidden_size, config.uvit
        self.vision = Siglip(config.siglip)
        self.aligner = Projector((config.siglip.width, hidden))
        self.image_start = nn.Parameter(torch.empty(1, hidden))
        self.gen_encoder = UViTEncoder(uvit, hidden)
        self.gen_encoder_aligner = Linear(uvit.width, hidden)
        self.llama = Llama(config.llama, config.max_positions)
        self.text_head = Linear(hidden, config.llama.vocab_size, bias=False)
        self.gen_decoder_norm = RMSNorm(hidden, config.llama.norm_eps)
        self.gen_decoder_aligner = Linear(hidden, uvit.read_width)
        self.gen_decoder = UViTDecoder(uvit, hidden)

    def reset_parameters(self) -> None:
        """What no other module resets; zero, as officially."""
        nn.init.zeros_(self.image_start)

    def embed_images(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, 1 + patches, D]: a learned begin-of-image stands in front of the patches.

        The official code detaches it, and so could never learn it; here it gets its gradient.
        """
        features = super().embed_images(pixels_BCHW)
        return torch.cat((self.image_start.expand(len(features), 1, -1), features), dim=1)

    def image_places(self, ids_BT: Tensor, image_id: int) -> Tensor:
        """The placeholders, and the begin-of-image in front of each run of them."""
        patches_BT = ids_BT == image_id
        next_BT = torch.cat((patches_BT[:, 1:], torch.zeros_like(patches_BT[:, :1])), dim=1)
        return patches_BT | next_BT

    def velocity(
        self,
        z_BCHY: Tensor,
        time_B: Tensor,
        step: Step,
        *,
        prompt_RPD: Tensor | None = None,
        cache: KVCache | None = None,
        image_of_row: Tensor | None = None,
    ) -> Tensor:
        """Where latents flow, [R, C, H, Y] in the model's dtype: what is added to them in one unit of t.

        Args:
            z_BCHY: t x picture + (1 - t) x noise, in the model's dtype.
            time_B: 1000 t, from 0 (noise) to 1000 (picture).
            step: from batcher.next_block with a cache that holds the prompts, or from batcher.lay_out_with_block.
            prompt_RPD: the prompts' embeddings, as the latter lays them out; without a cache.
            image_of_row: int64 [R], which image each row is about; None: row and image are the same.
        """
        grid_BWhy, time_BD = self.gen_encoder(z_BCHY, time_B)
        latents_BND = self.gen_encoder_aligner(grid_BWhy.flatten(2).transpose(1, 2))
        x_BTD = torch.cat((time_BD[:, None], latents_BND), dim=1)
        if image_of_row is not None:
            x_BTD, grid_BWhy, time_BD = x_BTD[image_of_row], grid_BWhy[image_of_row], time_BD[image_of_row]
        x_RTD = x_BTD if prompt_RPD is None else torch.cat((prompt_RPD, x_BTD), dim=1)
        hidden_RND = self.llama(x_RTD, step, cache)[:, -latents_BND.shape[1] :]
        read_RNW = self.gen_decoder_aligner(self.gen_decoder_norm(hidden_RND))
        read_RWhy = read_RNW.transpose(1, 2).unflatten(2, grid_BWhy.shape[2:])
        out: Tensor = self.gen_decoder(read_RWhy, grid_BWhy, time_BD)
        return out
