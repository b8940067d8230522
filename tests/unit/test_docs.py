"""The pages say what the code does: names, commands, routes, codes, links and variables are compared with it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from orchestrator.api.app import create_app
from orchestrator.api.dependencies import Services
from orchestrator.cli.main import app
from orchestrator.db import deletion, expiry, jobs, leases, queueing, replays, samples, shards
from orchestrator.domain.failures import FAILURE_CODES
from orchestrator.domain.jobs import ENDED
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {f"JANUS_{name.upper()}" for name in Settings.model_fields} | {"JANUS_URL", "JANUS_API_KEY"}
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\s*(?:\$ )?(?:\S*/)?janus((?: [^#|;&]*)?)")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


@each_page
def test_no_figure_is_still_to_be_filled_in(page: Path) -> None:
    assert not re.findall(r"\b(?:MEASURED|TODO|TBD|FIXME)\b", page.read_text(encoding="utf-8"))


def snippets(text: str) -> Iterator[str]:
    """Each line of fenced code that is not Python or JSON, and each piece of inline code."""
    for language, code in FENCED.findall(text):
        if language in ("", "sh", "text"):
            yield from code.splitlines()
    yield from re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def find_unknown(line: str) -> str | None:
    """What of a `janus …` line is neither a command nor one of its options."""
    found = COMMAND.match(line)
    if found is None:
        return None
    command: Any = typer.main.get_command(app)
    for word in found.group(1).split():
        below = getattr(command, "commands", None)
        if word.startswith("--"):
            known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            if word.partition("=")[0] not in known:
                return word
        elif below is not None and re.fullmatch(r"[a-z-]+", word):
            if word not in below:
                return word
            command = below[word]
    return None


@each_page
def test_every_command_and_option_named_exists(page: Path) -> None:
    unknown = {line: find_unknown(line) for line in snippets(page.read_text(encoding="utf-8"))}
    assert not {line: word for line, word in unknown.items() if word}


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert find_unknown("janus jobs list --limit 3") is None
    assert find_unknown("$ .venv/bin/janus jobs lst") == "lst"
    assert find_unknown("janus caption photos/ --outt x") == "--outt"


@each_page
def test_every_make_target_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for line in snippets(page.read_text(encoding="utf-8"))
        for target in re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", line)
    }
    assert named <= targets


@each_page
def test_relative_links_resolve(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in headings(target), f"{link}: {target.name} has no such heading"


def headings(page: Path) -> set[str]:
    """Anchors of a page, as code forges make them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@each_page
def test_every_variable_named_is_read(page: Path) -> None:
    named = set(re.findall(r"\bJANUS_[A-Z0-9_]*[A-Z0-9]\b(?!\*)", page.read_text(encoding="utf-8")))
    assert named <= SETTINGS


@each_page
def test_python_snippets_import_what_exists(page: Path) -> None:
    for language, code in FENCED.findall(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        compile(code, page.name, "exec")
        for module, names in re.findall(r"^from ((?:orchestrator|janus_core)\S*) import (.+)$", code, re.MULTILINE):
            imported = importlib.import_module(module)
            assert all(hasattr(imported, name.strip()) for name in names.split("#")[0].split(","))


def test_failure_codes_are_those_of_the_code() -> None:
    section = page_text("inputs.md").partition("\n## Failures\n")[2]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", section, re.MULTILINE)) == FAILURE_CODES


def test_routes_are_those_of_the_api() -> None:
    paths = create_app(cast("Services", None)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(re.findall(r"^\| `([A-Z]+ /\S+)` \|", page_text("api.md"), re.MULTILINE)) == routes


FUNCTIONS = re.compile(r"`(\w+)\.(\w+)`")


def test_transitions_and_events_are_those_of_the_code() -> None:
    text = page_text("lifecycle.md")
    modules = {
        module.__name__.rpartition(".")[2]: module
        for module in (deletion, expiry, jobs, leases, queueing, replays, samples, shards)
    }
    tables = [table for table in text.split("\n\n") if "| function in `orchestrator/db/` |" in table]
    named = [
        name for table in tables for row in table.splitlines()[2:] for name in FUNCTIONS.findall(row.split("|")[2])
    ]
    assert {module for module, _ in named} == set(modules)
    assert all(hasattr(modules[module], function) for module, function in named), named
    sources = "".join((ROOT / "orchestrator" / "db" / f"{name}.py").read_text() for name in modules)
    recorded = set(re.findall(r'"((?:job|shard)\.[a-z_]+)"', sources)) | {f"job.{state}" for state in ENDED}
    assert set(re.findall(r"`((?:job|shard)\.[a-z_]+)`", text)) == recorded


@pytest.mark.parametrize(
    ("page", "writer"), [("cli.md", "write_cli_help"), ("api-reference.md", "write_api_reference")]
)
def test_page_that_is_written_is_current(page: str, writer: str) -> None:
    path = ROOT / "docs" / f"{writer}.py"
    spec = importlib.util.spec_from_file_location(writer, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page_text(page) == module.write_page(), f"run: .venv/bin/python docs/{writer}.py"


def page_text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")
