"""The command line on its own: what commands ask of the client and the local stack, and what they say."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.live import Live
from typer.testing import CliRunner

from orchestrator.cli import completion, connection, jobs, models, output, registry, servers, submit
from orchestrator.cli.main import app
from orchestrator.cli.watch import _as_table
from orchestrator.client import Output
from orchestrator.local.errors import StackError
from orchestrator.local.stack import ProcessStatus, StackInfo, StackStatus
from orchestrator.schemas import FailureView, JobView, ModelView
from tests.unit.test_client import NOW, VIEW

PUBLISHED = [{"name": "janus-pro-1b", "family": "janus-pro", "revision": None}]
MODEL = {"name": "tiny", "family": "janus", "revision": "r1", "served": True, "registered_at": NOW}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, and a home in which nothing runs."""
    monkeypatch.delenv("JANUS_URL", raising=False)
    monkeypatch.setenv("JANUS_HOME", str(tmp_path / "home"))


class FakeStack:
    """`orchestrator.local.stack` with a stack that serves `models`."""

    def __init__(self, served: Sequence[str], *, running: bool, workers: int = 1) -> None:
        processes = [ProcessStatus(f"worker-{n}", 100 + n, True, n, None) for n in range(1, workers + 1)]
        self._status = StackStatus(running, "running", "", "http://x", list(served), processes)
        self.asked: list[tuple[list[str] | None, int]] = []
        self.error: StackError | None = None

    def status(self, home: Path) -> StackStatus:
        return self._status

    def up(self, home: Path, models: Sequence[str] | None, timeout_seconds: float, workers: int) -> StackInfo:
        self.asked.append((None if models is None else list(models), workers))
        if self.error is not None:
            raise self.error
        return StackInfo("http://x", "k", {}, {}, list(models or ()), already_running=True)


def local_of(stack: FakeStack, monkeypatch: pytest.MonkeyPatch) -> connection.Local:
    local = connection.Local()
    local._stack = stack  # type: ignore[assignment]
    for module in (connection, servers):
        monkeypatch.setattr(module, "require_local", lambda: local)
        monkeypatch.setattr(module, "require_servable", lambda name: None)
    return local


@pytest.mark.parametrize(
    ("running", "arguments", "asked"),
    [
        (True, ["--model", "new"], (["new", "a", "b=/b"], 2)),
        (True, ["--model", "b=/elsewhere"], (["b=/elsewhere", "a"], 2)),
        (True, ["--model", "a"], (["a", "b=/b"], 2)),
        (True, ["--model", "new", "--only"], (["new"], 2)),
        (True, ["--workers", "3"], (["a", "b=/b"], 3)),
        (True, [], (None, 2)),
        (False, ["--model", "new"], (["new"], 1)),
        (False, ["--workers", "3"], (["a", "b=/b"], 3)),
        (False, [], (None, 1)),
    ],
)
def test_up_adds_models_to_a_stack_that_runs(
    running: bool, arguments: list[str], asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = FakeStack(["a", "b=/b"], running=running, workers=2)
    local_of(stack, monkeypatch)
    assert run("up", *arguments).exit_code == 0
    assert stack.asked == [asked]


def test_up_serves_the_shipped_model_where_nothing_was_ever_served(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack([], running=False)
    local_of(stack, monkeypatch)
    assert run("up").exit_code == 0
    assert run("up", "--workers", "2").exit_code == 0
    assert stack.asked == [(["janus-tiny"], 1), (["janus-tiny"], 2)]


@pytest.mark.parametrize(
    ("served", "running", "asked", "used"),
    [([], False, ["janus-tiny"], "janus-tiny"), (["a"], True, ["a"], "a"), (["a", "b"], False, ["a", "b"], None)],
)
def test_work_for_no_model_in_particular_goes_to_the_one_there_is(
    served: list[str], running: bool, asked: list[str], used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = FakeStack(served, running=running)
    local_of(stack, monkeypatch)
    assert connection.connect_for_work(None).model == used
    assert stack.asked == [(asked, 1)]


def test_only_without_a_model_is_wrong_usage() -> None:
    assert run("up", "--only").exit_code == 2


def test_stack_that_does_not_come_up_quotes_the_worker_in_trouble_and_the_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = FakeStack(["a"], running=True, workers=2)
    local_of(stack, monkeypatch)
    stack.error = StackError("the local stack is still starting: no worker has its models loaded")
    logs = tmp_path / "home" / "logs"
    logs.mkdir(parents=True)
    (logs / "worker-2.log").write_text("Traceback\nthe folder has no tokenizer.json\n")
    done = run("up", "--model", "broken")
    assert done.exit_code == 1
    assert "the folder has no tokenizer.json" in done.stderr
    assert "janus up --only --model a" in done.stderr
    stack.error = StackError("worker-1 ended 3 times. Its log is /x; the end of it:\n  boom")
    assert "tokenizer" not in run("up", "--model", "broken").stderr


def test_published_models_are_listed_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "known_models", lambda: PUBLISHED)
    done = run("models", "list")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == ["janus-pro-1b\tjanus-pro\tnot pulled\tno"]
    assert "no server" in done.stderr
    (listed,) = json.loads(run("models", "list", "--json").stdout)
    assert (listed["name"], listed["served"]) == ("janus-pro-1b", False)


def test_published_models_stand_below_the_served_ones_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    served = SimpleNamespace(models=lambda: [ModelView.model_validate(MODEL)])
    monkeypatch.setattr(models, "find_server", lambda: served)
    monkeypatch.setattr(models, "known_models", lambda: [*PUBLISHED, PUBLISHED[0] | {"name": "tiny"}])
    assert [line.split("\t")[0] for line in run("models", "list").stdout.splitlines()[1:]] == ["tiny", "janus-pro-1b"]


def test_without_the_packages_of_a_worker_the_way_to_see_published_models_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    monkeypatch.setattr(models, "connect", lambda: SimpleNamespace(models=lambda: [ModelView.model_validate(MODEL)]))
    done = run("models", "list")
    assert "tiny" in done.stdout
    assert "janus-batch[worker]" in done.stderr


def test_registry_lists_what_is_published() -> None:
    assert "janus-pro-7b" in {model["name"] for model in registry.known_models() or ()}


def test_lock_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(models.os, "execv", lambda _, arguments: asked.append(arguments[3:]))
    run("models", "verify", "folder")
    run("models", "verify", "folder", "--lock")
    assert asked == [["verify", "folder"], ["verify", "folder", "--lock"]]


class FakeJob:
    """A job that ended with failures of these codes."""

    def __init__(self, codes: Sequence[str]) -> None:
        items = {"total": len(codes), "results": 0, "failures": len(codes), "cancelled": 0}
        self.id, self.ended, self._codes = "job_1", True, codes
        options = {"prompt": "What is it?", "steps": None}
        self.view = JobView.model_validate(VIEW | {"state": "completed", "items": items, "options": options})

    def download(self, out: Output) -> None:
        if out.path.name == "readonly":
            raise PermissionError(13, "Permission denied", str(out.path))

    def failures(self) -> Iterator[FailureView]:
        for index, code in enumerate(self._codes):
            yield FailureView(index=index, id=str(index), code=code, message="m", attempts=1)


@pytest.mark.parametrize(
    ("codes", "offered"), [(["item_invalid", "prompt_empty"], False), (["item_invalid", "worker_crashed"], True)]
)
def test_another_try_is_offered_only_where_it_may_help(
    codes: list[str], offered: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        submit.finish(FakeJob(codes), Output.of("x.jsonl"), as_json=True)  # type: ignore[arg-type]
    told = capsys.readouterr()
    assert ended.value.exit_code == 3
    assert ("janus jobs retry job_1" in told.err) is offered
    assert json.loads(told.out)["id"] == "job_1"


def test_options_of_a_job_are_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "connect", lambda: SimpleNamespace(attach=lambda _: FakeJob([])))
    shown = run("jobs", "show", "job_1").stdout
    assert "options.prompt\tWhat is it?\n" in shown
    assert "{" not in shown
    assert "steps" not in shown


def test_a_watched_job_has_one_row_however_often_it_is_looked_at() -> None:
    console = Console(file=io.StringIO(), width=120)
    live, view = Live(console=console, auto_refresh=False), JobView.model_validate(VIEW | {"name": "n" * 80})
    tell = _as_table(live)
    for _ in range(3):
        tell([view], "")
    with console.capture() as shown:
        console.print(live.get_renderable())
    assert shown.get().count(view.id) == 1, shown.get()
    assert "n…" in shown.get()


def test_file_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "connect", lambda: SimpleNamespace(attach=lambda _: FakeJob([])))
    done = run("jobs", "results", "job_1", "--out", "readonly")
    assert (done.exit_code, "Permission denied" in done.stderr) == (1, True)


def test_usage_lines_are_plain() -> None:
    usage = {
        name: re.sub(r"\s+", " ", run(*name.split(), "--help").stdout.partition("Usage: ")[2].partition("\n")[0])
        for name in ("caption", "generate", "jobs show", "models pull", "keys revoke")
    }
    assert not [line for line in usage.values() if "…" in line or "[[" in line]
    assert "SOURCE" in usage["caption"]
    assert "PROMPT" in usage["generate"]


NO_JSON = {"janus api", "janus dispatcher", "janus worker", "janus train"}  # processes, and one that tells as it goes
OTHER_JSON = {
    "janus caption": "Print the job as JSON at the end.",
    "janus generate": "Print the job as JSON at the end.",
    "janus jobs results": "With --out: print the job as JSON at the end.",
    "janus jobs watch": "Print a line of JSON for each change of a job.",
}


def each_command(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for word, subcommand in below.items():
        yield from each_command(subcommand, f"{name} {word}")


def test_every_command_speaks_json_to_scripts_and_says_which() -> None:
    for name, command in each_command(typer.main.get_command(app), "janus"):
        helps = [option.help for option in command.params if "--json" in option.opts]
        assert helps == ([] if name in NO_JSON else [OTHER_JSON.get(name, "Print JSON.")]), name


def test_text_of_others_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("ID",), [("\x1b]0;PWNED\x07a\tb\u202ec",)])
    output.note("first\nsecond \x1b[2J")
    shown = capsys.readouterr()
    assert shown.out == "ID\n\\x1b]0;PWNED\\x07a\\x09b\\x202ec\n"
    assert shown.err == "first\nsecond \\x1b[2J\n"


def test_table_shows_markup_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    output.print_table(("ID",), [("photo[/b].jpg",)])
    assert "photo[/b].jpg" in capsys.readouterr().out


def test_a_sweep_is_written_as_values_with_commas() -> None:
    assert submit._swept(["guidance=3,5.5", "top-k=1", "solver=euler,heun"]) == {
        "guidance": [3, 5.5],
        "top_k": [1],
        "solver": ["euler", "heun"],
    }
    for wrong in ("guidance", "=3", "seed=1,", "seed="):
        with pytest.raises(typer.BadParameter, match="write each option once"):
            submit._swept([wrong])
    with pytest.raises(typer.BadParameter):
        submit._swept(["seed=1", "seed=2"])


def test_completion_is_silent_without_a_server(capfd: pytest.CaptureFixture[str]) -> None:
    assert completion.complete_jobs("") == []
    assert completion.complete_models("ti") == []
    assert capfd.readouterr() == ("", "")


def test_a_model_that_no_worker_could_load_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "known_models", lambda: [*PUBLISHED, {"name": "tiny", "revision": "r1"}])
    registry.require_servable("tiny")
    registry.require_servable(f"mine={tmp_path}")
    for name, says in (
        ("janus-pro-1b", "janus models pull janus-pro-1b"),
        ("tinny", "no model is called 'tinny'"),
        (f"mine={tmp_path}/away", "no folder"),
    ):
        with pytest.raises(typer.Exit):
            registry.require_servable(name)
        assert says in capsys.readouterr().err
