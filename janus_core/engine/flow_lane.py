"""JanusFlow's images: latents that flow from noise to picture, every image by its own times, guidance and noise.

The prompts' keys and values are computed once; every move of the solver runs the latents alone, as a block behind them.
In bfloat16 times, steps and latents are bfloat16 as well, which belongs to the published behaviour: 30 steps of
bfloat16(1/30) reach 1.0034.

Shapes: R slots in use (every image's own, then those without prompt of guided images), B images, C x H x Y latents.
Source: deepseek-ai/Janus@1daa72f demo/app_janusflow.py:78-141. There the prompt is run again at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from janus_core.engine.batcher import next_block
from janus_core.engine.cache import KVCache
from janus_core.engine.devices import prefill_tokens
from janus_core.engine.guidance import Guidance
from janus_core.engine.lane import Lane
from janus_core.engine.prompts import PromptBook
from janus_core.engine.rows import FlowRow
from janus_core.engine.seating import Seat
from janus_core.models.janusflow import JanusFlow

OnMove = Callable[[Tensor, Tensor, Tensor], None]


class FlowLane(Lane[FlowRow]):
    """On the CPU every image is drawn alone unless max_rows is given.

    Its latents are many tokens at every move, which are computed hardly faster beside those of others (by a tenth, at
    width 384); and kernels round differently by batch size, so alone, and with its prompt computed alone, its bytes
    depend on its request only.

    `on_move` may watch: every move, its times [B], the velocities of all slots [R, C, H, Y], and the points that come
    of them [B, C, H, Y].
    """

    def __init__(
        self,
        model: JanusFlow,
        *,
        pad_id: int,
        max_slots: int,
        max_rows: int | None = None,
        on_move: OnMove | None = None,
    ) -> None:
        if max_rows is None:
            max_rows = 1 if model.device.type == "cpu" else max_slots
        super().__init__(model, max_slots=max_slots, max_rows=max_rows)
        self._flow, self._on_move = model, on_move
        self._prompts = PromptBook(model, pad_id, prefill_tokens(model.device) if max_rows > 1 else 0)

    def _open(self, cache: KVCache | None) -> None:
        self._batch: _Batch | None = None
        self._slots = _Slots(self._flow, cache.num_slots if cache else 0)
        if cache is None:
            self._prompts.forget()

    def _move(self, source: int, target: int) -> None:
        self._slots.move(source, target)

    def _tokens_to_begin(self, rows: Sequence[FlowRow]) -> int:
        return self._prompts.num_unknown([row.ids for row in rows])

    def _begin(self, seats: Sequence[Seat[FlowRow]]) -> None:
        """The block sees of a prompt that was dropped the begin-of-sentence alone, so both slots hold the prompt."""
        assert self._cache is not None
        for seat, prompt in zip(seats, self._prompts.look_up([seat.row.ids for seat in seats]), strict=True):
            for slot in seat.slots:
                self._cache.put(slot, prompt.keys, prompt.values)
            self._slots.begin(seat)

    def _advance(self) -> int:
        seats = self._seating.seats
        if self._batch is None or self._batch.seats != seats:
            self._batch = _Batch(self._flow, seats)
        batch, slots = self._batch, self._slots
        times_B, now, before, is_trial = batch.next_moves()
        points = slots.points_S[batch.slots_B]
        velocities = self._flow.velocity(
            points, times_B, batch.step, cache=self._cache, image_of_row=batch.image_of_slot
        )[batch.order_R]
        guided = batch.guidance.extrapolate(velocities)
        points = slots.advance(batch.slots_B, guided, now, before, is_trial)
        if self._on_move is not None:
            self._on_move(times_B, velocities, points)
        for row, latents in zip(batch.rows, points, strict=True):
            row.num_moved += 1
            if row.num_moved == len(row.moves):
                row.latents = latents
        return 1 + self._flow.config.num_latent_tokens


class _Slots:
    """What every image's own slot goes on with: its point, where the running step began, and the velocity before."""

    def __init__(self, model: JanusFlow, num_slots: int) -> None:
        shape = (num_slots, *model.config.latent_shape)
        self.points_S = torch.zeros(shape, device=model.device, dtype=model.dtype)
        self._bases_S, self._velocities_S = torch.zeros_like(self.points_S), torch.zeros_like(self.points_S)

    def begin(self, seat: Seat[FlowRow]) -> None:
        slot = seat.slots[0]
        self.points_S[slot] = self._bases_S[slot] = seat.row.noise.to(self.points_S.device, self.points_S.dtype)
        self._velocities_S[slot] = 0

    def move(self, source: int, target: int) -> None:
        for state in (self.points_S, self._bases_S, self._velocities_S):
            state[target] = state[source]

    def advance(self, slots_B: Tensor, guided: Tensor, now: Tensor, before: Tensor, is_trial: Tensor) -> Tensor:
        """One move; returns the new points [B, C, H, Y]."""
        bases = self._bases_S[slots_B]
        points = bases + (now * guided + before * self._velocities_S[slots_B])
        self.points_S[slots_B] = points
        self._bases_S[slots_B] = torch.where(is_trial.bool(), bases, points)
        self._velocities_S[slots_B] = guided
        return points


class _Batch:
    """One composition of images; made anew when some come or go.

    slots_B: of every image its own. order_R: the slots as guidance mixes them, with their prompts, then those without.
    """

    def __init__(self, model: JanusFlow, seats: Sequence[Seat[FlowRow]]) -> None:
        device = model.device
        self.seats, self.rows = list(seats), [seat.row for seat in seats]
        self.guidance = Guidance([row.guidance for row in self.rows], device)
        firsts = [seat.slots[0] for seat in seats]
        self.slots_B = torch.tensor(firsts, device=device)
        self.order_R = torch.tensor([*firsts, *(seats[n].slots[1] for n in self.guidance.guided)], device=device)
        image_of = {slot: n for n, seat in enumerate(seats) for slot in seat.slots}
        of_slot = [image_of[slot] for slot in range(len(image_of))]
        self.image_of_slot = torch.tensor(of_slot, device=device)
        lengths = [len(self.rows[n].ids) for n in of_slot]
        dropped = [slot not in firsts for slot in range(len(of_slot))]
        self.step = next_block(lengths, dropped, 1 + model.config.num_latent_tokens, device)
        self._moves_B4E = _tabulate(self.rows).to(model.dtype).to(device)
        self._numbers_B = torch.tensor([row.num_moved for row in self.rows], device=device)
        self._index_B = torch.arange(len(self.rows), device=device)

    def next_moves(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Times [B] of every image's next move, and now, before and is_trial [B, 1, 1, 1]."""
        moves_B4 = self._moves_B4E[self._index_B, :, self._numbers_B]
        self._numbers_B = self._numbers_B + 1
        times, now, before, is_trial = moves_B4[:, :, None, None, None].unbind(1)
        return times.flatten(), now, before, is_trial


def _tabulate(images: Sequence[FlowRow]) -> Tensor:
    """Float64 [B, 4, E]: times, now, before and is_trial of every image's moves, and zeros behind its last."""
    table = torch.zeros(len(images), 4, max(len(image.moves) for image in images), dtype=torch.float64)
    for row, image in zip(table, images, strict=True):
        fields = [[move.time, move.now, move.before, float(move.is_trial)] for move in image.moves]
        row[:, : len(fields)] = torch.tensor(fields, dtype=torch.float64).T
    return table
