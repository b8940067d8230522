"""The same inputs for everybody: ids and pixels as the engine makes them."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from janus_core.bench.cases import Case
from janus_core.engine.engine import Engine
from janus_core.engine.requests import CaptionRequest, GenerateRequest
from janus_core.engine.rows import CaptionRow, FlowRow, ImageRow

QUESTION = "Describe the image in detail."


class Inputs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.eos_id, self.pad_id = engine.tokenizer.eos_id, engine.tokenizer.pad_id
        self.image_id = engine.tokenizer.image_id

    def drawing(self, case: Case, letter: str = "a") -> list[int]:
        """Ids of a prompt as long as wanted; random checkpoints have a token for every letter."""
        overhead = len(self._ids("a")) - 1
        return self._ids(letter * (case.prompt_tokens - overhead))

    def caption_rows(self, case: Case) -> list[CaptionRow]:
        """Requests about different pictures."""
        side = self._engine.info.image_size
        rows = []
        for n in range(case.batch):
            picture = Image.linear_gradient("L").resize((side, side)).rotate(360 * n / case.batch).convert("RGB")
            row = self._engine.prepare_caption(CaptionRequest(picture, QUESTION, case.num_tokens))
            assert isinstance(row, CaptionRow)
            rows.append(row)
        return rows

    def prompt_tokens(self, case: Case) -> int:
        if case.task == "generate":
            return len(self.drawing(case))
        return len(self.caption_rows(replace(case, batch=1))[0].ids)

    def question(self, case: Case) -> tuple[Tensor, Tensor]:
        """Ids [B, T] and pixels [B, 3, S, S] of all requests."""
        rows, model = self.caption_rows(case), self._engine.model
        ids = torch.tensor([row.ids for row in rows], device=model.device)
        return ids, torch.cat([row.pixels for row in rows]).to(model.device, model.dtype)

    def _ids(self, prompt: str) -> list[int]:
        row = self._engine.prepare_image(GenerateRequest(prompt))
        assert isinstance(row, ImageRow | FlowRow)
        return row.ids
