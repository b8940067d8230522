"""Modules that take a batch and give losses: what the optimizer and several GPUs see.

Shapes: B rows, T tokens, P prompt tokens, N image codes, D width, C image codes to choose from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.engine.cache import Step
from janus_core.models.janus import Janus
from janus_core.models.llama import Llama
from janus_core.models.reader import Reader
from janus_core.training.batches import IGNORED, GenerationBatch, MixedBatch, TextBatch, UnderstandingBatch
from janus_core.training.losses import CrossEntropy, Losses


def whole_rows(ids_BT: Tensor) -> Step:
    """Every row from position 0, each token seeing those before it; padding is behind."""
    num_rows, num_tokens = ids_BT.shape
    positions_BT = torch.arange(num_tokens, device=ids_BT.device).expand(num_rows, num_tokens)
    return Step(positions=positions_BT, mask=None)


class TextObjective(nn.Module):
    """Text alone: the language model that the papers take ready-made."""

    def __init__(self, llama: Llama, text_head: nn.Linear) -> None:
        super().__init__()
        self.llama, self.text_head = llama, text_head

    def forward(self, batch: TextBatch) -> Losses:
        entropy = CrossEntropy()
        hidden_BTD = self.llama(self.llama.embed_tokens(batch.ids), whole_rows(batch.ids))
        wanted_BT = batch.targets != IGNORED
        entropy.add("text", self.text_head(hidden_BTD[wanted_BT]), batch.targets[wanted_BT])
        return entropy.mean()


class ReaderObjective(nn.Module):
    """What every Janus learns alike: the next token of answers and of texts."""

    def __init__(self, model: Reader, *, image_id: int) -> None:
        super().__init__()
        self.model = model
        self._image_id = image_id

    def read(self, batch: MixedBatch, entropy: CrossEntropy) -> None:
        """Add the batch's understanding and text, if any."""
        if batch.understanding is not None:
            entropy.add("understanding", *self._text(batch.understanding, batch.understanding.pixels))
        if batch.text is not None:
            entropy.add("text", *self._text(batch.text, None))

    def _text(self, batch: TextBatch | UnderstandingBatch, pixels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [R, V] at the positions with a target, and the targets [R]."""
        features = None if pixels is None else self.model.embed_images(pixels)
        embeddings_BTD = self.model.embed_prompt(batch.ids, self._image_id, features)
        hidden_BTD = self.model.llama(embeddings_BTD, whole_rows(batch.ids))
        wanted_BT = batch.targets != IGNORED
        return self.model.text_logits(hidden_BTD[wanted_BT]), batch.targets[wanted_BT]


class JanusObjective(ReaderObjective):
    """Janus and Janus-Pro: text as above, and the next image code of pictures."""

    model: Janus

    def __init__(self, model: Janus, *, image_id: int, pad_id: int) -> None:
        super().__init__(model, image_id=image_id)
        self._pad_id = pad_id

    def forward(self, batch: MixedBatch) -> Losses:
        entropy = CrossEntropy()
        self.read(batch, entropy)
        if batch.generation is not None:
            with torch.no_grad():
                codes_BN = self.model.vq.encode(batch.generation.pixels)
            logits_BNC = self.code_logits(batch.generation, codes_BN)
            entropy.add("generation", logits_BNC.flatten(0, 1), codes_BN.flatten())
        return entropy.mean()

    def code_logits(self, batch: GenerationBatch, codes_BN: Tensor) -> Tensor:
        """Teacher-forced logits [B, N, C]: position P - 1 + k of a row, given its prompt and the codes before k.

        A dropped prompt keeps its length: pads, attended, between its first and last token, as in inference.
        """
        num_rows, num_codes = codes_BN.shape
        ids_BT = nn.functional.pad(self._without_dropped(batch), (0, num_codes - 1))
        text_BTD = self.model.llama.embed_tokens(ids_BT)
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        since_prompt_BT = places_T - batch.lengths[:, None]
        fed_BT = (since_prompt_BT >= 0) & (since_prompt_BT < num_codes - 1)
        codes_BMD = self.model.embed_codes(codes_BN[:, :-1]).to(text_BTD.dtype)
        embeddings_BTD = text_BTD.masked_scatter(fed_BT[..., None], codes_BMD)
        hidden_BTD = self.model.llama(embeddings_BTD, whole_rows(ids_BT))
        asked_BT = (since_prompt_BT >= -1) & (since_prompt_BT < num_codes - 1)
        return self.model.image_logits(hidden_BTD[asked_BT]).view(num_rows, num_codes, -1)

    def _without_dropped(self, batch: GenerationBatch) -> Tensor:
        places_P = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        inside_BP = (places_P > 0) & (places_P < batch.lengths[:, None] - 1)
        return batch.ids.masked_fill(inside_BP & batch.dropped[:, None], self._pad_id)
