"""A folder of captions: a sidecar for each, named after its item's id, and `results.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from orchestrator.client._errors import BadOutput
from orchestrator.client._lines import Line, encode_line, read_lines
from orchestrator.client._outputs.earlier import CHOICES, earlier_lines, merge
from orchestrator.client._outputs.names import SidecarNames
from orchestrator.client._outputs.output import Existing, Output, Sidecar
from orchestrator.client._transfers import drafted, write_atomically
from orchestrator.domain.jobs import JobKind


def write_captions(output: Output, lines: IO[bytes]) -> None:
    """Raises BadOutput, before anything is written, where a sidecar is somebody else's and nobody said what to do."""
    if output.existing is None:
        _require_ours(output, lines)
    with drafted(output.path / "results.jsonl") as results:
        for line, name in _named(output, lines):
            if name is not None and "caption" in line:
                _write_sidecar(output.path / name, line, output)
            results.write(encode_line(line))


def _named(output: Output, lines: IO[bytes]) -> Iterator[tuple[Line, str | None]]:
    """Every line of `results.jsonl` to be, with the name of the sidecar that is to be written.

    Failures have names too: what stands beside them is not theirs.
    """
    if output.existing is not Existing.skip:
        names = SidecarNames((line["id"] for line in read_lines(lines)), output.sidecar)
        for line in read_lines(lines):
            yield line, names.take(line["index"], line["id"])
        return

    def earlier() -> Iterator[Line]:
        return earlier_lines(output, JobKind.caption)

    names = SidecarNames((line["id"] for line in chain(earlier(), read_lines(lines))), output.sidecar)
    name_of = {hash(line["id"]): names.take(line["index"], line["id"]) for line in earlier()}
    for merged in merge(earlier, lambda: read_lines(lines), JobKind.caption):
        line = merged.line
        known = name_of.get(hash(line["id"]))
        yield line, None if merged.source_index is None else known or names.take(line["index"], line["id"])


def _write_sidecar(path: Path, line: Line, output: Output) -> None:
    if output.existing is Existing.skip and path.exists():
        return
    data = encode_line(line) if output.sidecar is Sidecar.json else line["caption"].encode() + b"\n"
    if output.existing in (Existing.append, Existing.prepend) and path.exists():
        data = _joined(path.read_text(encoding="utf-8"), line["caption"], output.existing).encode() + b"\n"
    write_atomically(path, [data])


def _joined(text: str, caption: str, existing: Existing) -> str:
    """Both in one line; the text alone where it has the caption already, so that writing twice is writing once."""
    text = text.strip()
    if existing is Existing.append:
        return text if text.endswith(caption) else f"{text} {caption}".strip()
    return text if text.startswith(caption) else f"{caption} {text}".strip()


def _require_ours(output: Output, lines: IO[bytes]) -> None:
    """Every sidecar that would be replaced says what `results.jsonl`, or this job, says."""
    recorded = {
        hash(line["id"]): hash(line.get("caption"))
        for line in earlier_lines(output, JobKind.caption)
        if "caption" in line
    }
    for line, name in _named(output, lines):
        path = output.path / (name or "")
        if "caption" not in line or not path.is_file():
            continue
        text = _text_of(path, output.sidecar)
        if text != line["caption"] and hash(text) != recorded.get(hash(line["id"])):
            raise BadOutput(f"{path} was written or changed by somebody else; {CHOICES}")


def _text_of(path: Path, sidecar: Sidecar) -> str | None:
    """The caption in a sidecar; None where there is none to be read."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if sidecar is Sidecar.txt:
        return text.strip()
    try:
        found = json.loads(text).get("caption")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
