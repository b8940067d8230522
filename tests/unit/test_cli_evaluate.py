"""`janus evaluate`: what it hands on to the evaluation, which it does not import."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from typer.testing import CliRunner

from janus_core.evaluation.evaluate import Plan
from orchestrator.cli import evaluate
from orchestrator.cli.main import app


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(evaluate.os, "execv", lambda _, command: commands.append(command))
    return commands


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)


def test_every_option_is_handed_on_in_words_the_evaluation_knows(handed_on: list[list[str]]) -> None:
    from janus_core.evaluation.__main__ import _parser

    given = ["--model", "m", "--seed", "-3", "--scenes", "7", "--prompts", "6", "--images", "2", "--guidance", "3.5"]
    given += ["--temperature", "0.9", "--steps", "12", "--device", "cpu", "--dtype", "float32", "--threads", "2"]
    assert run(*given, "--out", "folder", "--json").exit_code == 0
    (command,) = handed_on
    assert command[1:3] == ["-m", "janus_core.evaluation"]
    assert _parser().parse_args(command[3:]) == _parser().parse_args([*given, "--out", "folder", "--json"])


def test_what_is_left_out_is_what_the_evaluation_would_take(handed_on: list[list[str]]) -> None:
    from janus_core.evaluation.__main__ import _parser

    run("--model", "m")
    (command,) = handed_on
    assert _parser().parse_args(command[3:]) == _parser().parse_args(["--model", "m"])
    shown = {name: value.default for name, value in inspect.signature(evaluate.evaluate).parameters.items()}
    assert [shown[name] for name in ("seed", "scenes", "prompts", "images")] == [
        Plan().seed,
        Plan().scenes,
        Plan().prompts,
        Plan().images,
    ]


def test_a_model_is_required(handed_on: list[list[str]]) -> None:
    assert run().exit_code == 2
    assert run("--model", "m", "--scenes", "-1").exit_code == 2
    assert handed_on == []


def test_without_the_packages_of_a_worker_the_way_is_told(
    monkeypatch: pytest.MonkeyPatch, handed_on: list[list[str]]
) -> None:
    monkeypatch.setattr(evaluate, "find_spec", lambda name: None)
    done = run("--model", "m")
    assert done.exit_code == 1
    assert "pip install 'janus-batch[worker]'" in done.stderr
    assert handed_on == []
