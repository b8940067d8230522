"""`janus teams …` and `janus keys …`, for keys with the scope `admin`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import AsJson, note, print_table, show, told_errors
from orchestrator.schemas import KeyCreate, KeyView

teams = typer.Typer(no_args_is_help=True, help="Teams: owners of keys and jobs.")
keys = typer.Typer(no_args_is_help=True, help="Keys: a team's secrets.")


@teams.command("create")
def create_team(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")], as_json: AsJson = False
) -> None:
    """Make a team."""
    with told_errors():
        team = connect().create_team(name)
    show(team, as_json=as_json, otherwise=lambda: print(team.id))


@teams.command("list")
def list_teams(as_json: AsJson = False) -> None:
    """All teams."""
    with told_errors():
        found = connect().teams()
    show(found, as_json=as_json, otherwise=lambda: print_table(("ID", "NAME"), [(t.id, t.name) for t in found]))


@keys.command("create")
def create_key(
    team: Annotated[str, typer.Option(help="The team's name or id.")],
    name: Annotated[str, typer.Option(help="What it is for, such as 'nightly captions'.")],
    scopes: Annotated[
        str, typer.Option(help="Comma-separated: jobs:read, jobs:write, admin.")
    ] = "jobs:read,jobs:write",
    days: Annotated[int | None, typer.Option(help="Expires after so many days; never without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once; only its hash is kept."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    split = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with told_errors():
        key = connect().create_key(KeyCreate(team=team, name=name, scopes=split, expires_at=expires_at))
    show(key, as_json=as_json, otherwise=lambda: print(key.key))
    if not as_json:
        note("keep it: it is not shown again")


@keys.command("list")
def list_keys(
    team: Annotated[str | None, typer.Option(help="Of this team only.")] = None, as_json: AsJson = False
) -> None:
    """Keys without their secrets."""
    with told_errors():
        found = connect().keys(team)
    rows = [(k.id, k.team_id, k.name, ",".join(k.scopes), _state(k), k.last_used_at or "never") for k in found]
    headers = ("ID", "TEAM", "NAME", "SCOPES", "STATE", "LAST USED")
    show(found, as_json=as_json, otherwise=lambda: print_table(headers, rows))


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `janus keys list` shows it.")],
) -> None:
    """Refuse a key from the next request on."""
    with told_errors():
        connect().revoke_key(key_id)
    note(f"{key_id} is revoked")


def _state(key: KeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at < datetime.now(UTC):
        return "expired"
    return "live"
