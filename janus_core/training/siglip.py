"""The understanding encoder's own training, small: pictures and captions that belong together find each other.

Shapes: B pairs, N patches, W width, T tokens, E embedding.
Source: SigLIP (arXiv 2303.15343). What is built around the tower here (pooling, text encoder) is thrown away after.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from janus_core.models.siglip import Siglip
from janus_core.training.batches import IGNORED, TextBatch
from janus_core.training.losses import Losses, sigmoid_contrastive

_TEXT_LAYERS = 2
_MAX_TOKENS = 96
_FIRST_SCALE, _FIRST_BIAS = math.log(10.0), -10.0


class SiglipObjective(nn.Module):
    """Attention pooling over patches against a small bidirectional text encoder."""

    def __init__(self, vision: Siglip, vocab_size: int, num_heads: int = 4) -> None:
        super().__init__()
        width = vision.pos_embed.shape[1]
        self.vision = vision
        self.probe = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.pool = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.embed_tokens = nn.Embedding(vocab_size, width)
        self.text_positions = nn.Parameter(torch.randn(_MAX_TOKENS, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.text = nn.TransformerEncoder(layer, _TEXT_LAYERS, enable_nested_tensor=False)
        self.text_out = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.tensor(_FIRST_SCALE))
        self.bias = nn.Parameter(torch.tensor(_FIRST_BIAS))

    def forward(self, batch: tuple[Tensor, TextBatch]) -> Losses:
        """pixels float32 [B, 3, S, S] and their captions."""
        pixels_BCHW, captions = batch
        images_BE = self.embed_images(pixels_BCHW)
        texts_BE = self.embed_texts(captions)
        ids_BT = captions.ids
        same_BB = (ids_BT[:, None] == ids_BT[None, :]).all(-1)
        total = sigmoid_contrastive(images_BE, texts_BE, same_BB, self.log_scale.exp(), self.bias)
        nearest = (images_BE @ texts_BE.T).argmax(1)
        found = same_BB[torch.arange(len(nearest), device=nearest.device), nearest].float().mean()
        return Losses(total, {"contrastive": total.detach(), "found": found.detach()})

    def embed_images(self, pixels_BCHW: Tensor) -> Tensor:
        features_BNW = self.vision(pixels_BCHW)
        probe_B1W = self.probe.expand(len(features_BNW), -1, -1).to(features_BNW.dtype)
        pooled_BW = self.pool(probe_B1W, features_BNW, features_BNW, need_weights=False)[0].squeeze(1)
        return nn.functional.normalize(pooled_BW.float(), dim=-1)

    def embed_texts(self, captions: TextBatch) -> Tensor:
        """The mean over a caption's tokens but its last; padding is neither looked at nor counted."""
        ids_BT = captions.ids
        padding_BT = captions.targets == IGNORED
        x_BTW = self.embed_tokens(ids_BT) + self.text_positions[: ids_BT.shape[1]]
        x_BTW = self.text(x_BTW, src_key_padding_mask=padding_BT)
        kept_BT1 = (~padding_BT).unsqueeze(-1).to(x_BTW.dtype)
        mean_BW = (x_BTW * kept_BT1).sum(1) / kept_BT1.sum(1)
        return nn.functional.normalize(self.text_out(mean_BW).float(), dim=-1)
