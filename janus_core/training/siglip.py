"""The understanding encoder's own training, small: pictures find their captions, and captions are read off them.

Shapes: B pairs, N patches, W width, T tokens, E embedding, V vocabulary, R tokens that are wanted.
Source: SigLIP (arXiv 2303.15343) for the pairs; the decoder beside it is SigLIP 2's (arXiv 2502.14786): it
makes every patch readable, and costs a quarter of the language model. What is built around the tower here (pooling,
text encoder, decoder) is thrown away after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from janus_core.models.siglip import Siglip
from janus_core.training.batches import IGNORED, TextBatch
from janus_core.training.losses import Losses, sigmoid_contrastive

_TEXT_LAYERS, _DECODER_LAYERS = 2, 2
_MAX_TOKENS = 96
_PLACE, _LONGEST_WAVE, _LITTLE = 0.7, 16.0, 0.02
_FIRST_SCALE, _FIRST_BIAS = math.log(10.0), -10.0


class SiglipObjective(nn.Module):
    """Attention pooling over patches against a small bidirectional text encoder, and a decoder that writes captions."""

    def __init__(self, vision: Siglip, vocab_size: int, num_looks: Sequence[int], num_heads: int = 4) -> None:
        """num_looks: how many shapes, colours and so on there are to tell of a patch."""
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
        reading = nn.TransformerDecoderLayer(
            width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(reading, _DECODER_LAYERS, norm=nn.LayerNorm(width))
        self.decoder_out = nn.Linear(width, vocab_size)
        self.tell = nn.ModuleList(nn.Linear(width, 1 + count) for count in num_looks)
        self.log_scale = nn.Parameter(torch.tensor(_FIRST_SCALE))
        self.bias = nn.Parameter(torch.tensor(_FIRST_BIAS))

    def forward(self, batch: tuple[Tensor, TextBatch, Tensor]) -> Losses:
        """pixels float32 [B, 3, S, S] and their captions. Both terms are means, over pairs and over tokens.

        With the published sum over texts pairs outshout reading: a reading loss of 0.52 took 1000 steps and not 600.
        """
        pixels_BCHW, captions, looks_BNK = batch
        features_BNW = self.vision(pixels_BCHW)
        images_BE, texts_BE = self.embed_images(features_BNW), self.embed_texts(captions)
        ids_BT = captions.ids
        same_BB = (ids_BT[:, None] == ids_BT[None, :]).all(-1)
        contrastive = sigmoid_contrastive(images_BE, texts_BE, same_BB, self.log_scale.exp(), self.bias)
        read = self.read(features_BNW, captions)
        nearest = (images_BE @ texts_BE.T).argmax(1)
        found = same_BB[torch.arange(len(nearest), device=nearest.device), nearest].float().mean()
        told = self.tell_looks(features_BNW, looks_BNK)
        parts = {"contrastive": contrastive, "read": read, "told": told, "found": found}
        total = contrastive / len(ids_BT) + read + told
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    def embed_images(self, features_BNW: Tensor) -> Tensor:
        probe_B1W = self.probe.expand(len(features_BNW), -1, -1).to(features_BNW.dtype)
        pooled_BW = self.pool(probe_B1W, features_BNW, features_BNW, need_weights=False)[0].squeeze(1)
        return nn.functional.normalize(pooled_BW.float(), dim=-1)

    def read(self, features_BNW: Tensor, captions: TextBatch) -> Tensor:
        """Mean cross-entropy of the captions' tokens, each given the picture and the tokens before it."""
        num_tokens = captions.ids.shape[1]
        x_BTW = self.embed_tokens(captions.ids) + self.text_positions[:num_tokens]
        later_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=x_BTW.device).triu(1)
        hidden_BTW = self.decoder(x_BTW, features_BNW, tgt_mask=later_TT, tgt_is_causal=True)
        wanted_BT = captions.targets != IGNORED
        logits_RV = self.decoder_out(hidden_BTW[wanted_BT])
        return nn.functional.cross_entropy(logits_RV.float(), captions.targets[wanted_BT])

    def tell_looks(self, features_BNW: Tensor, looks_BNK: Tensor) -> Tensor:
        """Mean cross-entropy of what stands on every patch, over patches and kinds of looks."""
        losses = [
            nn.functional.cross_entropy(head(features_BNW).flatten(0, 1).float(), looks_BNK[..., kind].flatten())
            for kind, head in enumerate(self.tell)
        ]
        return torch.stack(losses).mean()

    def embed_texts(self, captions: TextBatch) -> Tensor:
        """The mean over a caption's tokens but its last; padding is neither looked at nor counted."""
        ids_BT = captions.ids
        padding_BT = captions.targets == IGNORED
        x_BTW = self.embed_tokens(ids_BT) + self.text_positions[: ids_BT.shape[1]]
        x_BTW = self.text(x_BTW, src_key_padding_mask=padding_BT)
        kept_BT1 = (~padding_BT).unsqueeze(-1).to(x_BTW.dtype)
        mean_BW = (x_BTW * kept_BT1).sum(1) / kept_BT1.sum(1)
        return nn.functional.normalize(self.text_out(mean_BW).float(), dim=-1)


@torch.no_grad()
def start_with_places(vision: Siglip) -> None:
    """Positions that tell neighbours from the first step on, in waves along both axes, and blocks that add little.

    Shapes are larger than patches: they cannot be told before patches find their neighbours. Source of the waves:
    arXiv 2205.01580, for small vision transformers.
    """
    width, side = vision.pos_embed.shape[1], math.isqrt(vision.pos_embed.shape[0])
    rates = math.pi / 2 * torch.exp(torch.arange(width // 4) * (-math.log(_LONGEST_WAVE) / (width // 4)))
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)
    rows, columns = waves[:, None].expand(side, side, -1), waves.expand(side, side, -1)
    vision.pos_embed.copy_(_PLACE * torch.cat((rows, columns), dim=-1).flatten(0, 1))
    for name, layer in vision.blocks.named_modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
            if name.endswith(("attn.proj", "mlp.fc2")):
                nn.init.normal_(layer.weight, std=_LITTLE)
