"""Which sidecar a caption goes into: `a/b.jpg` becomes `a/b.txt`, and no two items share one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from orchestrator.domain.names import is_safe_name

MAX_NAME_BYTES = 240  # of a file or folder; file systems take 255, and a draft has a longer name


class SidecarNames:
    """Names for the items of one job, given out in item order.

    Args:
        ids: all of them; the folder that the absolute ones have in common is left out of their names.
        ending: of a name, without its dot.
    """

    def __init__(self, ids: Iterable[str], ending: str = "txt") -> None:
        self._common = _common_folder(ids)
        self._ending = ending
        self._taken: set[int] = set()  # hashes: 100 bytes an item instead of the name itself

    def take(self, index: int, item_id: str) -> str:
        """A relative path: with `.txt` for the id's ending, behind it where that is taken, else the index."""
        tail, end = _safe_tail(item_id, self._common), f".{self._ending}"
        names = [str(PurePosixPath(tail).with_suffix(end)), f"{tail}{end}"] if tail else []
        names += [f"{index:09d}{end}", f"{index:09d}.caption{end}"]
        name = next((name for name in names if hash(name) not in self._taken), f"{index:09d}.item{end}")
        self._taken.add(hash(name))
        return name


def _common_folder(ids: Iterable[str]) -> tuple[str, ...]:
    """Parts of the deepest folder above every absolute id."""
    common: tuple[str, ...] | None = None
    for item_id in ids:
        if not item_id.startswith("/"):
            continue
        folders = PurePosixPath(item_id).parts[:-1]
        if common is None:
            common = folders
        while common != folders[: len(common)]:
            common = common[:-1]
    return common or ()


def _safe_tail(item_id: str, common: tuple[str, ...]) -> str:
    """The end of an id that stays below a folder; empty where there is none."""
    parts = PurePosixPath(item_id).parts
    if item_id.startswith("/"):
        parts = parts[max(1, len(common)) :]
    climbs = [place for place, part in enumerate(parts) if part == ".."]
    tail = "/".join(parts[climbs[-1] + 1 :] if climbs else parts)
    short = all(len(part.encode("utf-8", "replace")) <= MAX_NAME_BYTES for part in parts)
    return tail if short and is_safe_name(tail) else ""
