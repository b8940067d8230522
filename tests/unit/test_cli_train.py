"""`janus train`: what it hands on to the training, which it does not import."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from orchestrator.cli import train
from orchestrator.cli.main import app


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(train.os, "execv", lambda _, command: commands.append(command))
    return commands


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)


def test_every_option_is_handed_on_in_words_the_training_knows(handed_on: list[list[str]]) -> None:
    from janus_core.training.__main__ import _parse

    given = ["--recipe", "sft", "--out", "run", "--seed", "-3", "--precision", "float32", "--threads", "2"]
    given += ["--init", "janus-pro-1b", "--data", "c.jsonl", "--images", "photos", "--prompt", "--dashes--"]
    given += ["--epochs", "0.5", "--batch-size", "3", "--learning-rate", "1e-5"]
    assert run(*given).exit_code == 0
    (command,) = handed_on
    assert command[1:3] == ["-m", "janus_core.training"]
    options, sft = _parse(command[3:])
    assert (options.recipe, options.out, options.seed) == ("sft", Path("run"), -3)
    assert (options.precision, options.threads) == ("float32", 2)
    assert sft is not None
    assert (sft.init, sft.data, sft.images, sft.prompt) == (
        "janus-pro-1b",
        Path("c.jsonl"),
        Path("photos"),
        "--dashes--",
    )
    assert (sft.epochs, sft.batch_size, sft.learning_rate) == (0.5, 3, 1e-5)


def test_what_is_left_out_is_what_the_training_would_take(handed_on: list[list[str]]) -> None:
    from janus_core.training.__main__ import _parse

    for given in (["--recipe", "janus-tiny", "--out", "o"], ["--recipe=sft", "--out=o", "--init=m", "--data=d"]):
        run(*given)
        assert _parse(handed_on.pop()[3:]) == _parse(given)


def test_its_recipes_are_those_of_the_training() -> None:
    from janus_core.training.__main__ import RECIPES

    assert get_args(get_type_hints(train.train)["recipe"]) == RECIPES


def test_the_help_says_what_is_taken_where_something_is_left_out() -> None:
    from janus_core.training.recipes.sft import Options

    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for told in (f"{Options.prompt!r}", f"through the pairs; {Options.epochs:g}", f"in pairs; {Options.batch_size}"):
        assert f"{told} when left out." in page


def test_recipe_and_folder_are_required_and_counts_are_whole(handed_on: list[list[str]]) -> None:
    assert run("--out", "o").exit_code == 2
    assert run("--recipe", "sft").exit_code == 2
    assert run("--recipe", "align", "--out", "o").exit_code == 2
    assert run("--recipe", "sft", "--out", "o", "--batch-size", "0").exit_code == 2
    assert handed_on == []


@pytest.mark.parametrize("absent", train.PACKAGES)
def test_without_a_package_of_training_the_way_is_told(
    absent: str, monkeypatch: pytest.MonkeyPatch, handed_on: list[list[str]]
) -> None:
    monkeypatch.setattr(train, "find_spec", lambda name: None if name == absent else object())
    done = run("--recipe", "janus-tiny", "--out", "o")
    assert done.exit_code == 1
    assert done.stderr == f"janus: training needs {absent}: pip install 'janus-batch[train]'\n"
    assert handed_on == []
