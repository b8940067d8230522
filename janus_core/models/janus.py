"""Janus and Janus-Pro: one Llama that reads SigLIP features and writes text, or reads and writes image codes.

Shapes: B rows, T tokens, D width of the language model, V text vocabulary, C image codes.
Source: deepseek-ai/Janus@1daa72f janus/models/modeling_vlm.py.
"""

from __future__ import annotations

from torch import Tensor, nn

from janus_core.configs import JanusConfig
from janus_core.models.layers import Linear
from janus_core.models.llama import Llama
from janus_core.models.projectors import Projector
from janus_core.models.reader import Reader
from janus_core.models.siglip import Siglip
from janus_core.models.vq import VQModel


class Janus(Reader):
    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.config = config
        hidden, vq = config.llama.hidden_size, config.vq
        self.vision = Siglip(config.siglip)
        self.aligner = Projector((config.siglip.width, *[hidden] * config.aligner_depth))
        self.vq = VQModel(vq)
        self.gen_embed = nn.Embedding(vq.num_codes, vq.code_size)
        self.gen_aligner = Projector((vq.code_size, *[hidden] * config.gen_aligner_depth))
        self.gen_head = Projector((hidden, config.gen_head_width, vq.num_codes))
        self.llama = Llama(config.llama, config.max_positions)
        self.text_head = Linear(hidden, config.llama.vocab_size, bias=False)
        self._folded_codes_CD: Tensor | None = None

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Image codes as the language model's input, [..., D]. Their embedding is not brought to unit length."""
        if self._folded_codes_CD is not None:
            return nn.functional.embedding(codes, self._folded_codes_CD)
        out: Tensor = self.gen_aligner(self.gen_embed(codes))
        return out

    def fold_codes(self) -> None:
        """Compute what `embed_codes` gives for every code once and for all; the model is not to change after it."""
        self._folded_codes_CD = self.gen_aligner(self.gen_embed.weight)

    def image_logits(self, hidden_RD: Tensor) -> Tensor:
        """float32 [R, C]."""
        out: Tensor = self.gen_head(hidden_RD)
        return out.float()

    def decode_codes(self, codes_BT: Tensor) -> Tensor:
        """Pixels [B, 3, S, S], nominally [-1, 1], of whole images."""
        side = self.config.grid_side
        return self.vq.decode(codes_BT, side, side)
