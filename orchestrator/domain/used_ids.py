"""The ids that a job's items have used so far, in 15 bytes an id, or a bit where the id is the item's own index.

Of other ids 96 bits of hash are kept, sorted in buckets that are split as they fill. Two of a million ids that differ
share them with a chance of 6 in 10^18, two of a hundred million with 6 in 10^14; the later one would be refused.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

HASH_BITS = 64
BUCKET_IDS = 512  # on average when the buckets are split: few enough that making room is nothing beside the hash


class UsedIds:
    """Remembers hashes of Python's own, whose secret is the process's: nobody can choose ids that collide."""

    def __init__(self) -> None:
        self._own_index = bytearray()  # bit n: item n is called n
        self._has_numbers = False  # whether another id is a number
        self._highs = [array("Q")]  # the first 64 bits of the hashes, ascending in a bucket and from one to the next
        self._lows = [array("I")]  # 32 more bits of each
        self._shift = HASH_BITS  # what of the first 64 bits does not say which bucket
        self._room = BUCKET_IDS

    def add(self, item_id: str, index: int) -> bool:
        """Remember the id of item `index`; False where an item with a lower index has it already."""
        if item_id.isdecimal():
            if item_id == str(index):
                self._mark(index)
                return not self._has_numbers or not self._hold(item_id, keep=False)
            if self._is_own_index(item_id):
                return False
            self._has_numbers = True
        return not self._hold(item_id, keep=True)

    def _hold(self, item_id: str, *, keep: bool) -> bool:
        """Whether the hash of this id is there; with `keep` it is from now on."""
        high, low = hash(item_id) & 0xFFFFFFFFFFFFFFFF, hash(f"\x00{item_id}") & 0xFFFFFFFF
        bucket = high >> self._shift
        highs, lows = self._highs[bucket], self._lows[bucket]
        place = bisect_left(highs, high)
        for other in range(place, len(highs)):
            if highs[other] != high:
                break
            if lows[other] == low:
                return True
        if keep:
            highs.insert(place, high)
            lows.insert(place, low)
            self._room -= 1
            if not self._room:
                self._split()
        return False

    def _split(self) -> None:
        """Each bucket becomes two, at the middle of its hashes' range."""
        self._shift -= 1
        highs: list[array[int]] = []
        lows: list[array[int]] = []
        for number in range(len(self._highs)):
            high, low = self._highs[number], self._lows[number]
            middle = bisect_left(high, 2 * number + 1 << self._shift)
            highs += high[:middle], high[middle:]
            lows += low[:middle], low[middle:]
            self._highs[number] = self._lows[number] = array("I")  # let go at once, so that there are never two of all
        self._highs, self._lows = highs, lows
        self._room = BUCKET_IDS * len(highs) // 2

    def _mark(self, index: int) -> None:
        byte, bit = divmod(index, 8)
        if byte >= len(self._own_index):
            self._own_index.extend(bytes(byte + 1 - len(self._own_index)))
        self._own_index[byte] |= 1 << bit

    def _is_own_index(self, item_id: str) -> bool:
        if len(item_id) > 18:
            return False
        byte, bit = divmod(int(item_id), 8)
        is_marked = byte < len(self._own_index) and bool(self._own_index[byte] >> bit & 1)
        return is_marked and item_id == str(int(item_id))
