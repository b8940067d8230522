"""Ratios of data, and what the papers publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from janus_core.registry import MODELS
from janus_core.training.presets import PUBLISHED, Phase, Ratio


@pytest.mark.parametrize(
    ("ratio", "batch_size", "rows"),
    [
        (Ratio(2, 3, 5), 512, (102, 154, 256)),
        (Ratio(5, 1, 4), 128, (64, 13, 51)),
        (Ratio(1, 0, 3), 256, (64, 0, 192)),
        (Ratio(7, 3, 10), 256, (90, 38, 128)),
        (Ratio(2, 1, 1), 3, (1, 1, 1)),
        (Ratio(0, 0, 1), 5, (0, 0, 5)),
    ],
)
def test_rows_of_a_batch_are_as_near_to_the_ratio_as_whole_rows_are(
    ratio: Ratio, batch_size: int, rows: tuple[int, int, int]
) -> None:
    assert ratio.split(batch_size) == rows


def test_every_kind_with_a_part_has_a_row() -> None:
    assert Ratio(50, 1, 49).split(20) == (10, 1, 9)
    with pytest.raises(ValueError, match="every kind needs a row"):
        Ratio(1, 1, 1).split(2)


def test_every_batch_is_filled() -> None:
    for parts in [(2, 3, 5), (1, 0, 3), (5, 1, 4), (14, 6, 80), (21, 9, 70)]:
        for batch_size in range(16, 130):
            counts = Ratio(*parts).split(batch_size)
            assert sum(counts) == batch_size
            for count, part in zip(counts, parts, strict=True):
                assert abs(count - batch_size * part / sum(parts)) < 1, (parts, batch_size)


def test_a_ratio_may_differ_in_the_first_steps() -> None:
    phase = Phase("p", 9, 8, 1e-3, 0, ratio=Ratio(1, 1, 2), first_ratio=(3, Ratio(1, 0, 0)))
    assert [phase.ratio_at(step).text for step in range(5)] == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match="p has no mixture"):
        Phase("p", 9, 8, 1e-3, 0).ratio_at(0)


def test_every_published_model_has_its_three_stages_and_full_batches() -> None:
    assert PUBLISHED.keys() == {model.name for model in MODELS.values() if model.repo is not None}
    for phases in PUBLISHED.values():
        assert [phase.stage for phase in phases] == [1, 2, 3]
        assert all(sum(phase.ratio_at(0).split(phase.batch_size)) == phase.batch_size for phase in phases)


def test_the_page_shows_them_as_they_are() -> None:
    page = (Path(__file__).parents[4] / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.partition("\n## Published hyper-parameters\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [write_row(name, phase) for name, phases in PUBLISHED.items() for phase in phases]


def write_row(name: str, phase: Phase) -> str:
    assert phase.ratio is not None
    rate = f"{phase.learning_rate:.0e}".replace("e-0", "e-")
    ratio = " : ".join(str(part) for part in (phase.ratio.understanding, phase.ratio.text, phase.ratio.generation))
    cells = [f"`{name}`", phase.stage, rate, phase.schedule, f"{phase.warmup_steps:,}", f"{phase.weight_decay:g}"]
    return f"| {' | '.join(map(str, [*cells, f'{phase.steps:,}', phase.batch_size, ratio]))} |"
