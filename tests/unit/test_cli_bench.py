"""`janus bench engine`: what it hands on to the benchmark, which it does not import."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import bench
from orchestrator.cli.main import app


@pytest.fixture
def handed_on(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(bench.os, "execv", lambda _, command: commands.append(command))
    return commands


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", "engine", *arguments], catch_exceptions=False)


def test_every_option_is_handed_on_in_words_the_benchmark_knows(handed_on: list[list[str]]) -> None:
    from janus_core.bench.__main__ import _parser

    given = ["--model", "m", "--task", "caption", "--batch", "8", "--prompt-tokens", "99", "--tokens", "7"]
    given += ["--peer", "none", "--rounds", "2", "--device", "cpu", "--dtype", "float32", "--threads", "2", "--json"]
    given += ["--shape", "tiny", "--answer-tokens", "64", "--kernels", "packed", "--quantize", "int8"]
    assert run(*given).exit_code == 0
    (command,) = handed_on
    assert command[1:3] == ["-m", "janus_core.bench"]
    assert _parser().parse_args(command[3:]) == _parser().parse_args(given)


def test_what_is_left_out_is_what_the_benchmark_would_take(handed_on: list[list[str]]) -> None:
    from janus_core.bench.__main__ import _parser

    assert run("--model", "m").exit_code == 0
    (command,) = handed_on
    assert _parser().parse_args(command[3:]) == _parser().parse_args(["--model", "m"])


def test_nothing_is_measured_by_itself() -> None:
    shown = CliRunner().invoke(app, ["bench"])
    assert "engine" in shown.output
