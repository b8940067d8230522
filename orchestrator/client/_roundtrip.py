"""A round trip: pictures to captions, and those captions to pictures, side by side."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.client._errors import NothingToSubmit
from orchestrator.client._faces import Call
from orchestrator.client._job import J, JobCalls
from orchestrator.client._lines import Line
from orchestrator.client._outputs.columns import load_package
from orchestrator.client._sheets import MAX_TILES, Labelled, Pictures, each_picture, save_sheet, small_picture
from orchestrator.client._steps import Steps, work
from orchestrator.client._submission import Submission
from orchestrator.domain.jobs import CaptionOptions

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1e1e22}"
    "article{display:grid;grid-template-columns:1fr 1fr;gap:1rem;margin:0 0 2rem}"
    "img{width:100%}p{grid-column:1/-1;margin:0}.id{color:#6e6e74}"
)


@dataclass(frozen=True)
class RoundTrip:
    """The folder with everything, and the ids of the two jobs that made it."""

    folder: Path
    caption_job: str
    generate_job: str
    num_items: int
    num_pairs: int


class RoundTrips(Submission[J]):
    """The call of a client that is made of two jobs."""

    @Call
    def roundtrip(
        self,
        sources: Any,
        out: str | Path,
        *,
        model: str | None = None,
        caption_model: str | None = None,
        generate_model: str | None = None,
        prompt: str | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Steps[RoundTrip]:
        """Caption pictures, draw the captions, and put both side by side in a folder.

        Args:
            sources: as of `caption`; not a stream, as they are read a second time for the page.
            out: gets `captions.jsonl`, the drawn pictures in `drawn/`, small originals in `originals/`, and to look at
                `index.html` and `side-by-side.jpg`, which has the first pairs.
            model: of both jobs, where one does both.
        Raises:
            NothingToSubmit: no picture got a caption.
            PackageMissing: it needs the extra `pictures`.
        """
        load_package("PIL.Image", "pictures")
        folder, question = Path(out), prompt or CaptionOptions.prompt
        first = yield from Submission.caption.steps(
            self, sources, model=caption_model or model, prompt=question, seed=seed
        )
        yield from JobCalls.wait.steps(first, progress=progress)
        yield from JobCalls.download.steps(first, folder / "captions.jsonl")
        captions = yield from work(partial(_read, folder / "captions.jsonl"))
        yield from work(partial(_write_prompts, folder / "prompts.jsonl", captions, first.id))
        second = yield from Submission.generate.steps(
            self, file=folder / "prompts.jsonl", model=generate_model or model, seed=seed
        )
        yield from JobCalls.wait.steps(second, progress=progress)
        yield from JobCalls.download.steps(second, folder / "drawn")
        num_pairs = yield from work(partial(_put_side_by_side, folder, sources, captions))
        return RoundTrip(folder, first.id, second.id, len(captions), num_pairs)


def _read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _write_prompts(path: Path, captions: Iterable[Line], job_id: str) -> None:
    lines = [{"id": line["id"], "prompt": line["caption"]} for line in captions if line.get("caption")]
    if not lines:
        raise NothingToSubmit(f"no picture got a caption; `janus jobs failures {job_id}` says why")
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _put_side_by_side(folder: Path, sources: Any, captions: Sequence[Line]) -> int:
    """The page and the sheet; how many pictures were drawn."""
    drawn = {line["id"]: f"drawn/{line['images'][0]['file']}" for line in _read(folder / "drawn" / "results.jsonl")
             if line.get("images")}  # fmt: skip
    on_sheet = [line["id"] for line in captions[: MAX_TILES // 2]]
    names, originals = _save(folder, captions, sources, frozenset(on_sheet))
    articles = [_article(line, names.get(line["id"]), drawn.get(line["id"])) for line in captions]
    (folder / "index.html").write_text(_page(articles), encoding="utf-8")
    tiles = list[Labelled]()
    for line in captions[: MAX_TILES // 2]:
        made = drawn.get(line["id"])
        tiles.append((originals.get(line["id"]), line["id"]))
        tiles.append((small_picture(folder / made) if made else None, _words(line)))
    title, heading = "Pictures, and what was drawn from their captions", f"{len(tiles) // 2} of {len(captions)} pairs"
    save_sheet(folder / "side-by-side.jpg", title, tiles, heading)
    return len(drawn)


def _save(
    folder: Path, captions: Iterable[Line], sources: Any, kept: Collection[str]
) -> tuple[dict[str, str], Pictures]:
    """Small originals, under names that come from numbers: their names by id, and those pictures that are kept."""
    (folder / "originals").mkdir(exist_ok=True)
    wanted = {line["id"]: f"originals/{line['index']:09d}.jpg" for line in captions}
    names, originals = dict[str, str](), Pictures()
    for item_id, picture in each_picture(sources, wanted.keys()):
        names[item_id] = wanted[item_id]
        picture.save(folder / wanted[item_id], "JPEG", quality=88)
        if item_id in kept:
            originals[item_id] = picture
    return names, originals


def _words(line: Line) -> str:
    return str(line.get("caption") or line.get("failure", {}).get("message", "an empty caption"))


def _article(line: Line, original: str | None, drawn: str | None) -> str:
    pictures = "".join(
        f'<img src="{html.escape(name)}" alt="{alt}" loading="lazy">' if name else f"<span>no {alt} picture</span>"
        for name, alt in ((original, "original"), (drawn, "drawn"))
    )
    words = f'<p><span class="id">{html.escape(line["id"])}</span> {html.escape(_words(line))}</p>'
    return f"<article>{pictures}{words}</article>"


def _page(articles: Iterable[str]) -> str:
    """A page that asks nothing of anybody but the files beside it."""
    policy = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += f"<title>Round trip</title><style>{STYLE}</style>"
    body = "\n".join(articles)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>Round trip</h1>\n{body}\n</body></html>\n'
