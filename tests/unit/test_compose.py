"""docker-compose.yml, .env.example and docs/operations.md, checked by reading them: no Docker engine is needed."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from orchestrator.local.commands import Commands
from orchestrator.local.supervisor import WORKER_PATIENCE_SECONDS
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
SERVERS = ("postgres", "redis", "minio")
PROCESSES = ("api", "dispatcher", "worker")
SETTINGS = {f"JANUS_{name.upper()}" for name in Settings.model_fields}
OURS = re.compile(r"\bJANUS_[A-Z0-9_]+")


def defaults() -> dict[str, str]:
    """Every optional setting with its default as text."""
    optional = {name: field for name, field in Settings.model_fields.items() if not field.is_required()}
    return {
        f"JANUS_{name.upper()}": "" if field.default is PydanticUndefined else str(field.default)
        for name, field in optional.items()
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_and_every_service_is_kept_running(name: str) -> None:
    service = SERVICES[name]
    _, _, tag = service["image"].rpartition(":")
    assert re.search(r"\d+\.\d+|\d{4}-\d{2}-\d{2}T", tag), service["image"]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert "no-new-privileges:true" in service["security_opt"]


def test_no_secret_has_a_default() -> None:
    for variable, rest in re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE_TEXT):
        if re.search(r"PASSWORD|SECRET|ACCESS_KEY", variable):
            assert rest.startswith(":?"), f"{variable} may be empty or has a default"
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|ACCESS_KEY|_URL$", variable):
                assert ":?" in value, f"{name}: {variable} is written out"


def test_servers_and_the_api_have_health_checks_and_are_waited_for() -> None:
    assert all(SERVICES[name]["healthcheck"]["test"] for name in (*SERVERS, "api"))
    for name in PROCESSES:
        conditions = {need: value["condition"] for need, value in SERVICES[name]["depends_on"].items()}
        assert conditions == dict.fromkeys(SERVERS, "service_healthy") | {"migrate": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_compose_runs_the_same_commands_as_the_local_stack() -> None:
    commands = Commands()
    table = {field.name: list(getattr(commands, field.name)) for field in fields(commands)}
    for name in (*PROCESSES, "migrate"):
        assert SERVICES[name]["command"] == table[name]


def test_only_the_api_and_the_store_are_published_and_on_the_loopback_address() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "minio"}
    assert all(":-127.0.0.1:" in port for ports in published.values() for port in ports)
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["inside"]


def test_a_worker_has_more_time_to_end_than_it_takes() -> None:
    assert SERVICES["worker"]["profiles"] == ["gpu"]
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > WORKER_PATIENCE_SECONDS


DESCRIBED = ["docker-compose.yml", ".env.example", "README.md", "docs/operations.md", "docs/security.md", "docs/api.md"]


@pytest.mark.parametrize("name", DESCRIBED)
def test_no_server_is_described_without_a_password(name: str) -> None:
    text = (ROOT / name).read_text()
    for url in re.findall(r"(?:redis|postgresql\+psycopg)://[^`\"\n]+", text):
        assert re.match(r"\S+?://\w*:[^@/]+@", url), url
    assert text.count("valkey-server -") == text.count("requirepass")
    for store in re.findall(r"image: (?:chrislusf/seaweedfs|quay.io/minio/minio).*?(?=\n\n|\n```|\Z)", text, re.DOTALL):
        assert "JANUS_S3_SECRET_KEY:?" in store, "a store without a key"


def test_every_variable_of_ours_is_a_setting_and_every_setting_can_be_set() -> None:
    assert set(OURS.findall(COMPOSE_TEXT)) <= SETTINGS
    passed = {variable for name in PROCESSES for variable in SERVICES[name]["environment"]}
    assert SETTINGS - passed == {"JANUS_WORKER_ID"}, "pass new settings on in docker-compose.yml"


def test_processes_write_nothing_into_their_image_and_run_without_privileges() -> None:
    for name in (*PROCESSES, "migrate"):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["build"]["target"] == ("worker" if name == "worker" else "server")


def test_the_example_environment_names_every_setting_with_its_default_and_no_secret() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = dict(m.groups() for line in lines if (m := re.match(r"#? ?(\w+)=(.*)$", line)))
    assert set(pairs) >= SETTINGS
    wanted = set(re.findall(r"\$\{(\w+)", COMPOSE_TEXT))
    assert wanted <= set(pairs)
    assert all(pairs[name] == "" for name in wanted if re.search(r"PASSWORD|SECRET|ACCESS_KEY", name))
    for variable, default in defaults().items():
        if variable != "JANUS_S3_PUBLIC_ENDPOINT":
            assert pairs[variable] == default, (
                f"{variable} is {pairs[variable]} in .env.example and {default} in Settings"
            )


def test_the_operations_page_has_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(JANUS_\w+)` \| (.*?) \|", page, re.MULTILINE))
    expected = dict.fromkeys(SETTINGS, "**required**")
    expected |= {variable: f"`{default}`" if default else "empty" for variable, default in defaults().items()}
    assert rows == expected
    known = SETTINGS | {"JANUS_URL", "JANUS_API_KEY"}  # the two of the client
    assert set(OURS.findall(page)) <= known


def test_the_dockerfile_has_both_targets_a_pinned_base_and_an_ordinary_user() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", text, re.MULTILINE)
    assert {name for _, name in stages} >= {"server", "worker"}
    assert all(base in ("base", "build") or re.search(r":\d+\.\d+\.\d+", base) for base, _ in stages)
    for target in ("server", "worker"):
        stage = text.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "\nUSER janus\n" in stage
