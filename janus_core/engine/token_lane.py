"""Captions, and images of Janus and Janus-Pro: a token for every row and step, in one forward pass for both.

The text head sees the rows of captions alone, and the image head those of images. What a step gives stays on the
device; captions are looked at every few steps for their end, so that no step waits for the host.

Shapes: R slots in use, B rows, D width, V vocabulary, C image codes, N positions of a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from janus_core.engine.batcher import lay_out, next_step
from janus_core.engine.cache import KVCache
from janus_core.engine.devices import prefill_tokens
from janus_core.engine.filters import rule_out
from janus_core.engine.guidance import Guidance, without_prompt
from janus_core.engine.lane import Lane
from janus_core.engine.prompts import PromptBook
from janus_core.engine.rows import CaptionRow, ImageRow
from janus_core.engine.sampling import Picker, draw_stream, sampling_device
from janus_core.engine.scheduler import padded_tokens
from janus_core.engine.seating import Seat
from janus_core.models.janus import Janus
from janus_core.models.reader import Reader

TokenRow: TypeAlias = CaptionRow | ImageRow

STEPS_BETWEEN_LOOKS = 4
"""On an accelerator: a caption that ended goes on for up to three steps, and three of four need no synchronisation."""


@dataclass
class Watch:
    """For those who compare with the published loops; a turn of who is watched is one step.

    on_text: the rows of a step and their logits, float32 [B, V]. on_image: the logits of images, float32 [R, C], all
    with their prompt, then all without, and what was mixed of them, [B, C]. pick: in place of the rows' own sampling.
    """

    on_text: Callable[[Sequence[CaptionRow], Tensor], None] | None = None
    on_image: Callable[[Tensor, Tensor], None] | None = None
    pick: Callable[[Tensor], Tensor] | None = None


class TokenLane(Lane[TokenRow]):
    def __init__(
        self,
        model: Reader,
        *,
        image_id: int,
        eos_id: int,
        pad_id: int,
        max_slots: int,
        max_rows: int,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(model, max_slots=max_slots, max_rows=max_rows)
        self._image_id, self._eos_id, self._pad_id = image_id, eos_id, pad_id
        self._prompts = PromptBook(model, pad_id, prefill_tokens(model.device))
        self._watch = watch or Watch()
        looks_always = model.device.type == "cpu" or watch is not None
        self._steps_between_looks = 1 if looks_always else STEPS_BETWEEN_LOOKS

    def _open(self, cache: KVCache | None) -> None:
        self._batch: _Batch | None = None
        num_slots, capacity = (cache.num_slots, cache.capacity) if cache else (0, 0)
        self._slots = _Slots(num_slots, capacity, self._model.device)
        if cache is None:
            self._prompts.forget()

    def _move(self, source: int, target: int) -> None:
        self._slots.move(source, target)

    def _tokens_to_begin(self, rows: Sequence[TokenRow]) -> int:
        captions = [row for row in rows if isinstance(row, CaptionRow)]
        images = [row for row in rows if isinstance(row, ImageRow)]
        return padded_tokens(captions) + self._prompts.num_unknown(
            [half for row in images for half in self._halves(row)]
        )

    def _halves(self, row: ImageRow) -> list[list[int]]:
        """What its slots begin with."""
        return [row.ids, without_prompt(row.ids, self._pad_id)][: row.num_slots]

    def _begin(self, seats: Sequence[Seat[TokenRow]]) -> None:
        for seat in seats:
            self._slots.put_stream(seat)
        captions = [seat for seat in seats if isinstance(seat.row, CaptionRow)]
        if captions:
            self._begin_captions(captions)
        images = [(seat, seat.row) for seat in seats if isinstance(seat.row, ImageRow)]
        if images:
            self._begin_images(images)

    def _begin_captions(self, seats: Sequence[Seat[TokenRow]]) -> None:
        model, rows = self._model, [seat.row for seat in seats if isinstance(seat.row, CaptionRow)]
        laid = lay_out([row.ids for row in rows], self._pad_id, model.device, [seat.slots[0] for seat in seats])
        pixels = torch.cat([row.pixels for row in rows]).to(model.device, model.dtype)
        embeddings = model.embed_prompt(laid.ids, self._image_id, model.embed_images(pixels))
        last_BD = model.llama(embeddings, laid.step, self._cache, last_B=laid.last)
        batch = _Batch(seats, [[n] for n in range(len(rows))], model.device)
        self._choose(batch, last_BD)
        self._look(batch, 1)

    def _begin_images(self, images: Sequence[tuple[Seat[TokenRow], ImageRow]]) -> None:
        assert self._cache is not None
        prompts: list[list[int]] = []
        places: list[list[int]] = []
        for _, row in images:
            halves = self._halves(row)
            places.append([len(prompts) + k for k in range(len(halves))])
            prompts += halves
        known = self._prompts.look_up(prompts)
        for slot, prompt in zip((slot for seat, _ in images for slot in seat.slots), known, strict=True):
            self._cache.put(slot, prompt.keys, prompt.values)
        batch = _Batch([seat for seat, _ in images], places, self._model.device)
        self._choose(batch, torch.stack([prompt.last for prompt in known]))
        self._look(batch, 1)

    def _advance(self) -> int:
        seats, model = self._seating.seats, self._model
        if self._batch is None or self._batch.seats != seats:
            self._batch = _Batch(seats, [seat.slots for seat in seats], model.device)
        batch = self._batch
        steps_between_looks = 1 if batch.filters else self._steps_between_looks  # a filter knows the newest token
        num_steps = min(steps_between_looks, *(_num_left(seat.row) for seat in seats))
        for _ in range(num_steps):
            step = next_step(batch.positions_R, batch.num_seen)
            hidden_R1D = model.llama(self._embed(batch)[:, None], step, self._cache)
            self._choose(batch, hidden_R1D.flatten(0, 1))
            batch.advance()
        self._look(batch, num_steps)
        return num_steps

    def _embed(self, batch: _Batch) -> Tensor:
        """The newest tokens of all slots, [R, D]: words and image codes have embeddings of their own."""
        newest_R, model = self._slots.newest_S[: batch.num_slots], self._model
        if not batch.images:
            words: Tensor = model.llama.embed_tokens(newest_R)
            return words
        assert isinstance(model, Janus)
        if not batch.captions:
            return model.embed_codes(newest_R)
        embeddings = torch.empty(
            batch.num_slots, model.config.llama.hidden_size, device=model.device, dtype=model.dtype
        )
        embeddings[batch.caption_slots] = model.llama.embed_tokens(newest_R[batch.caption_slots])
        embeddings[batch.image_slots] = model.embed_codes(newest_R[batch.image_slots])
        return embeddings

    def _choose(self, batch: _Batch, hidden_RD: Tensor) -> None:
        """Every row's next token, from the hidden states of all its slots."""
        model, slots = self._model, self._slots
        if batch.captions:
            logits_BV = model.text_logits(hidden_RD[batch.caption_places])
            if self._watch.on_text is not None:
                self._watch.on_text(batch.captions, logits_BV)
            if batch.filters:
                rule_out(logits_BV, batch.filters)
            uniforms_B = slots.uniforms(batch.caption_slots, batch.caption_counts)
            slots.answer(batch.caption_slots, batch.caption_counts, batch.text_picker(logits_BV, uniforms_B))
        if batch.images:
            assert isinstance(model, Janus)
            logits_RC = model.image_logits(hidden_RD[batch.image_places])
            mixed_BC = batch.guidance.mix(logits_RC)
            if self._watch.on_image is not None:
                self._watch.on_image(logits_RC, mixed_BC)
            own_slots = batch.image_slots[: len(batch.images)]
            if self._watch.pick is not None:
                codes_B = self._watch.pick(mixed_BC)
            else:
                codes_B = batch.image_picker(mixed_BC, slots.uniforms(own_slots, batch.image_counts))
            slots.answer(own_slots, batch.image_counts, codes_B)
            slots.newest_S[batch.image_slots] = batch.guidance.feed(codes_B)

    def _look(self, batch: _Batch, num_steps: int) -> None:
        """Bring what the last steps gave to the rows: captions token by token, images once they are complete."""
        if batch.captions:
            firsts = [len(row.tokens) for row in batch.captions]
            answers = self._slots.read(batch.caption_slots, firsts, num_steps)
            for row, tokens in zip(batch.captions, answers, strict=True):
                for token in tokens:
                    row.accept(token, self._eos_id)
        for seat, image in zip(batch.image_seats, batch.images, strict=True):
            image.num_drawn += num_steps
            if image.num_drawn == image.num_codes:
                image.codes = self._slots.answers_SN[seat.slots[0], : image.num_codes].clone()


def _num_left(row: TokenRow) -> int:
    return row.max_new_tokens - len(row.tokens) if isinstance(row, CaptionRow) else row.num_codes - row.num_drawn


class _Slots:
    """What every slot goes on with beside its cache: the newest token, the uniform numbers, and the answers so far."""

    def __init__(self, num_slots: int, capacity: int, device: torch.device) -> None:
        self.newest_S = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.answers_SN = torch.zeros(num_slots, capacity, dtype=torch.int64, device=device)
        self._streams_SN = torch.zeros(num_slots, capacity, dtype=torch.float64, device=sampling_device(device))

    def put_stream(self, seat: Seat[TokenRow]) -> None:
        count = _num_left(seat.row)
        self._streams_SN[seat.slots[0], :count] = draw_stream(seat.row.sampling, count).to(self._streams_SN.device)

    def move(self, source: int, target: int) -> None:
        for state in (self.newest_S, self.answers_SN, self._streams_SN):
            state[target] = state[source]

    def uniforms(self, slots_B: Tensor, counts_B: Tensor) -> Tensor:
        device = self._streams_SN.device
        return self._streams_SN[slots_B.to(device), counts_B.to(device)]

    def answer(self, slots_B: Tensor, counts_B: Tensor, tokens_B: Tensor) -> None:
        self.answers_SN[slots_B, counts_B] = tokens_B
        self.newest_S[slots_B] = tokens_B

    def read(self, slots_B: Tensor, firsts: Sequence[int], count: int) -> list[list[int]]:
        """So many answers of each slot, from its own first on."""
        columns_BN = torch.tensor(firsts, device=slots_B.device)[:, None] + torch.arange(count, device=slots_B.device)
        answers: list[list[int]] = self.answers_SN[slots_B[:, None], columns_BN].tolist()
        return answers


class _Batch:
    """One composition of rows; made anew when some come or go.

    places: of each seat's slots among the hidden states. `*_slots` and `*_places` of images hold all with their prompt,
    then those without.
    """

    def __init__(self, seats: Sequence[Seat[TokenRow]], places: Sequence[Sequence[int]], device: torch.device) -> None:
        def index(wanted: list[int]) -> Tensor:
            return torch.tensor(wanted, dtype=torch.int64, device=device)

        self.seats = list(seats)
        seated = list(zip(seats, places, strict=True))
        captions = [(seat, seat.row, own) for seat, own in seated if isinstance(seat.row, CaptionRow)]
        images = [(seat, seat.row, own) for seat, own in seated if isinstance(seat.row, ImageRow)]

        self.captions = [row for _, row, _ in captions]
        self.caption_places = index([own[0] for _, _, own in captions])
        self.caption_slots = index([seat.slots[0] for seat, _, _ in captions])
        self.caption_counts = index([len(row.tokens) for row in self.captions])
        self.filters = [(n, row.filter, row.tokens) for n, row in enumerate(self.captions) if row.filter]
        self.text_picker = Picker([row.sampling for row in self.captions], device)

        self.images = [row for _, row, _ in images]
        self.image_seats = [seat for seat, _, _ in images]
        self.image_places = index([own[k] for k in (0, 1) for _, _, own in images if k < len(own)])
        self.image_slots = index([seat.slots[k] for k in (0, 1) for seat, _, _ in images if k < len(seat.slots)])
        self.image_counts = index([row.num_drawn for row in self.images])
        self.image_picker = Picker([row.sampling for row in self.images], device)
        self.guidance = Guidance([row.guidance for row in self.images], device)

        at = {slot: _newest_position(seat.row) for seat in seats for slot in seat.slots}
        self.num_slots, self.num_seen = len(at), max(at.values()) + 1
        self.positions_R = index([at[slot] for slot in sorted(at)])

    def advance(self) -> None:
        """Everybody's newest token stands one further."""
        self.positions_R = self.positions_R + 1
        self.caption_counts = self.caption_counts + 1
        self.image_counts = self.image_counts + 1
        self.num_seen += 1


def _newest_position(row: TokenRow) -> int:
    return len(row.ids) - 1 + (len(row.tokens) if isinstance(row, CaptionRow) else row.num_drawn)
