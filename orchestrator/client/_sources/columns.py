"""Which column of a table is what: as told, or guessed from usual names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.client._errors import BadSource
from orchestrator.domain.templates import name_fields

IMAGE_NAMES = ("image", "img", "image_path", "file_name", "filename", "file", "path", "image_url", "url", "jpg", "png")
PROMPT_NAMES = ("prompt", "text", "caption")
ID_NAMES = ("id", "__key__", "key")


@dataclass(frozen=True)
class Columns:
    """What was told; None is to be guessed.

    fields: columns that the prompt names, `{tags}`.
    """

    image: str | None = None
    id: str | None = None
    prompt: str | None = None
    fields: frozenset[str] = frozenset()

    @property
    def is_told(self) -> bool:
        return (self.image, self.id, self.prompt) != (None, None, None)

    def of_images(self, name: str, known: Iterable[str], pictures: Sequence[str] = ()) -> Columns:
        """The columns of a table of images.

        Args:
            name: of the table, for messages.
            pictures: columns that hold pictures by their type.
        Raises BadSource: there is no such column; the message lists those that there are.
        """
        have = list(known)
        image = self.image or next((each for each in (*pictures, *IMAGE_NAMES) if each in have), None)
        self._require(name, have, image, "image_column")
        self._require_fields(name, have)
        return Columns(image, self._id(name, have), self._told(name, have, self.prompt, "prompt_column"), self.fields)

    def of_prompts(self, name: str, known: Iterable[str]) -> Columns:
        """The columns of a table of prompts; with fields the prompt is made of these. Raises BadSource."""
        have = list(known)
        self._require_fields(name, have)
        prompt = self.prompt or next((each for each in PROMPT_NAMES if each in have), None)
        if not self.fields:
            self._require(name, have, prompt, "prompt_column")
        return Columns(None, self._id(name, have), prompt, self.fields)

    def wanted(self) -> list[str]:
        """The columns to read."""
        return list(dict.fromkeys(filter(None, (self.image, self.id, self.prompt, *sorted(self.fields)))))

    def _id(self, name: str, have: list[str]) -> str | None:
        return self._told(name, have, self.id, "id_column") or next((each for each in ID_NAMES if each in have), None)

    def _told(self, name: str, have: list[str], column: str | None, option: str) -> str | None:
        if column is not None:
            self._require(name, have, column, option)
        return column

    def _require(self, name: str, have: list[str], column: str | None, option: str) -> None:
        if column not in have:
            what = "no column that I know" if column is None else f"no column {column!r}"
            raise BadSource(f"{name}: {what}; it has {_listed(have)}. Say which one it is: {option}=")

    def _require_fields(self, name: str, have: list[str]) -> None:
        missing = sorted(self.fields - set(have) - name_fields("").keys())
        if missing:
            raise BadSource(f"{name}: the prompt names {{{missing[0]}}}, which is no column; it has {_listed(have)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names)[:500] or "none"
