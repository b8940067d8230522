"""What every Janus is: a vision tower, an aligner and a Llama with a text head, that read images and write text.

Shapes: B rows, T tokens, D width of the language model, V text vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.models.layers import Linear
from janus_core.models.llama import Llama
from janus_core.models.projectors import Projector
from janus_core.models.siglip import Siglip


class Reader(nn.Module):
    """The models build these parts themselves, each in its own order."""

    vision: Siglip
    aligner: Projector
    llama: Llama
    text_head: Linear

    @property
    def device(self) -> torch.device:
        return self.llama.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.llama.norm.weight.dtype

    def embed_images(self, pixels_BCHW: Tensor) -> Tensor:
        """Image features [B, features, D]: what `embed_prompt` takes."""
        out: Tensor = self.aligner(self.vision(pixels_BCHW))
        return out

    def embed_prompt(self, ids_BT: Tensor, image_id: int, features: Tensor | None) -> Tensor:
        """Text embeddings [B, T, D] with `features` [images, features, D] at the images' places, in row-major order."""
        places_BT = self.image_places(ids_BT, image_id)
        embeddings: Tensor = self.llama.embed_tokens(ids_BT.masked_fill(places_BT, 0))
        if features is not None:
            return embeddings.masked_scatter(places_BT[..., None], features.to(embeddings.dtype))
        return embeddings

    def image_places(self, ids_BT: Tensor, image_id: int) -> Tensor:
        """Bool [B, T]: where features stand instead of text embeddings."""
        return ids_BT == image_id

    def text_logits(self, hidden_RD: Tensor) -> Tensor:
        """float32 [R, V]. Takes rows only: a head over a strided [B, 1, D] slice copies the whole head."""
        out: Tensor = self.text_head(hidden_RD)
        return out.float()
