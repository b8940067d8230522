"""Who holds which slot of the pool; plain Python."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Seatable(Protocol):
    @property
    def num_slots(self) -> int: ...


R = TypeVar("R", bound=Seatable)


@dataclass(eq=False)
class Seat(Generic[R]):
    """A running request and its slots: with its prompt, and if it is guided without."""

    row: R
    slots: list[int]


class Seating(Generic[R]):
    """Newcomers sit down in the first free slots. Holes that remain are closed by moving the last ones forward."""

    def __init__(self) -> None:
        self.seats: list[Seat[R]] = []

    def sit(self, row: R) -> Seat[R]:
        taken = {slot for seat in self.seats for slot in seat.slots}
        free = (slot for slot in range(len(taken) + row.num_slots) if slot not in taken)
        seat = Seat(row, [next(free) for _ in range(row.num_slots)])
        self.seats.append(seat)
        return seat

    def leave(self, rows: Container[R]) -> None:
        self.seats = [seat for seat in self.seats if seat.row not in rows]

    def close_ranks(self) -> list[tuple[int, int, R]]:
        """Let the first slots be those in use. Returns what moved: from, to, and whose it is."""
        owners = {slot: (seat, k) for seat in self.seats for k, slot in enumerate(seat.slots)}
        holes = [slot for slot in range(len(owners)) if slot not in owners]
        behind = sorted(slot for slot in owners if slot >= len(owners))
        moves = []
        for target, source in zip(holes, behind, strict=True):
            seat, k = owners[source]
            seat.slots[k] = target
            moves.append((source, target, seat.row))
        return moves
