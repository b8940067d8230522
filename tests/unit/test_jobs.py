"""Options and seeds."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.jobs import CaptionOptions, Counts, GenerateOptions, JobKind, options_for, seed_of


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": " "}, "prompt"),
    ],
)
def test_wrong_option_is_named(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"options.{field}"):
        CaptionOptions(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["guidance", "temperature"])
@pytest.mark.parametrize("value", [float("inf"), -1.0, 101.0])
def test_how_to_draw_is_a_number_or_the_models_own(name: str, value: float) -> None:
    usual = asdict(GenerateOptions())
    assert usual[name] is None
    with pytest.raises(InvalidRequest, match=rf"options\.{name}"):
        GenerateOptions(**(usual | {name: value}))


def test_a_solver_that_is_not_there_is_named() -> None:
    assert GenerateOptions(solver="heun", steps=12).solver == "heun"
    with pytest.raises(InvalidRequest, match=r"options\.solver is 'rk4'"):
        GenerateOptions(solver="rk4")  # type: ignore[arg-type]


def test_options_survive_storage() -> None:
    options = GenerateOptions(images=3, guidance=4.5, seed=9)
    assert options_for(JobKind.generate, asdict(options)) == options


def test_no_two_images_of_a_job_share_a_seed() -> None:
    options = GenerateOptions(images=4, seed=100)
    seeds = [seed_of(options, index, None) + k for index in range(50) for k in range(options.images)]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == 100
    assert seed_of(options, 17, 5) == 5


def test_balance() -> None:
    assert Counts(10, 7, 2, 1).balanced
    assert not Counts(10, 7, 2, 0).balanced
