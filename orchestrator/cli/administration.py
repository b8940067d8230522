"""`janus teams …`, `janus keys …` and `janus audit`, for keys with the scope `admin`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated

import typer

from orchestrator.cli.completion import complete_keys, complete_teams
from orchestrator.cli.connection import connect
from orchestrator.cli.output import AsJson, local_time, note, print_table, show, told_errors
from orchestrator.domain.errors import InvalidRequest
from orchestrator.domain.sizes import format_size, parse_size
from orchestrator.domain.turns import MAX_WEIGHT
from orchestrator.schemas import KeyCreate, KeyView, QuotaUse, QuotaView

IN_FLIGHT = "Items of shards in the queue and in workers' hands."
PER_DAY = "Items that are computed in a day of UTC."
QUOTA_OF = "The team's id, as `janus teams list` shows it; without it, the team of the key, which anybody may look at."
STORED = "Bytes of its uploads and of what its jobs made, such as 500GB or 2TiB."

teams = typer.Typer(no_args_is_help=True, help="Teams: owners of keys and jobs.")
keys = typer.Typer(no_args_is_help=True, help="Keys: a team's secrets.")

KeyId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The key's id, as `janus keys list` shows it.", autocompletion=complete_keys),
]


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
    show(
        found,
        as_json=as_json,
        otherwise=lambda: print_table(("ID", "NAME", "WEIGHT"), [(t.id, t.name, t.weight) for t in found]),
    )


@teams.command("weight")
def weigh_team(
    team_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The team's id, as `janus teams list` shows it.", autocompletion=complete_teams
        ),
    ],
    weight: Annotated[int, typer.Argument(min=1, max=MAX_WEIGHT, help="Turns for each one of a team of weight 1.")],
    as_json: AsJson = False,
) -> None:
    """Set a team's share of the workers while others have work too."""
    with told_errors():
        team = connect().set_team_weight(team_id, weight)
    show(team, as_json=as_json, otherwise=lambda: print(f"{team.name}: {team.weight}"))


@teams.command("quota")
def set_quota(
    team_id: Annotated[str | None, typer.Argument(metavar="ID", help=QUOTA_OF, autocompletion=complete_teams)] = None,
    in_flight: Annotated[str | None, typer.Option(metavar="ITEMS", help=IN_FLIGHT)] = None,
    per_day: Annotated[str | None, typer.Option(metavar="ITEMS", help=PER_DAY)] = None,
    stored_bytes: Annotated[str | None, typer.Option(metavar="SIZE", help=STORED)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a team uses of its quota, or set what is given; `none` takes a limit away. The rest stays as it is."""
    given = {"in_flight": _limit(in_flight), "per_day": _limit(per_day), "stored_bytes": _limit(stored_bytes)}
    changes = {name: limit for name, limit in given.items() if limit is not None}
    with told_errors():
        client = connect()
        view = client.quota(team_id)
        if changes:
            team_id = view.team_id
            limits = {name: getattr(view, name).limit for name in given}
            view = client.set_quota(team_id, **(limits | {name: limit or None for name, limit in changes.items()}))
    show(view, as_json=as_json, otherwise=lambda: _print_quota(view))


def _limit(text: str | None) -> int | None:
    """The number; 0 for `none`, which nothing else is; None where nothing was said. Exits, 2, for what is neither."""
    if text is None:
        return None
    try:
        limit = 0 if text == "none" else parse_size(text)
    except InvalidRequest as error:
        raise typer.BadParameter(f"{error.message}, or none") from None
    if not limit and text != "none":
        raise typer.BadParameter("the least quota is 1; to let nobody of a team work, revoke its keys")
    return limit


def _print_quota(view: QuotaView) -> None:
    def row(name: str, use: QuotaUse, form: Callable[[int], str]) -> tuple[str, str, str]:
        used = "not measured" if use.used is None else form(use.used)
        return name, used, "none" if use.limit is None else form(use.limit)

    rows = [
        row("items in flight", view.in_flight, str),
        row("items a day", view.per_day, str),
        row("stored bytes", view.stored_bytes, lambda size: f"{size} ({format_size(size)})"),
    ]
    print_table(("QUOTA", "USED", "LIMIT"), rows)


@keys.command("create")
def create_key(
    team: Annotated[str, typer.Option(help="The team's name or id.")],
    name: Annotated[str, typer.Option(help="What it is for, such as 'nightly captions'.")],
    scopes: Annotated[
        str, typer.Option(help="Comma-separated: jobs:read, jobs:write, admin.")
    ] = "jobs:read,jobs:write",
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Expires after so many days; never without it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once; only its hash is kept."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    split = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    with told_errors():
        wanted = {"team": team, "name": name, "scopes": split, "expires_at": expires_at}
        key = connect().create_key(KeyCreate.model_validate(wanted))
    show(key, as_json=as_json, otherwise=lambda: print(key.key))
    if not as_json:
        note(f"keep it: it is not shown again; its id is {key.id}")


@keys.command("list")
def list_keys(
    team: Annotated[str | None, typer.Option(help="Of this team only.")] = None, as_json: AsJson = False
) -> None:
    """Keys without their secrets."""
    with told_errors():
        found = connect().keys(team)
    rows = [
        (k.id, k.team_id, k.name, ",".join(k.scopes), _state(k), local_time(k.expires_at, "never"),
         local_time(k.last_used_at, "never"))
        for k in found
    ]  # fmt: skip
    headers = ("ID", "TEAM", "NAME", "SCOPES", "STATE", "EXPIRES", "LAST USED")
    show(found, as_json=as_json, otherwise=lambda: print_table(headers, rows))


@keys.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap_days: Annotated[int, typer.Option(min=0, max=90, help="The old key works for so many days more.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Make a new key in a live one's place, of the same team, name and scopes. It is shown this once."""
    with told_errors():
        key = connect().rotate_key(key_id, overlap_days=overlap_days)
    show(key, as_json=as_json, otherwise=lambda: print(key.key))
    if not as_json:
        note(f"keep it: it is not shown again; its id is {key.id}, and {key_id} ends in {overlap_days} days")


@keys.command("revoke")
def revoke_key(
    key_id: KeyId,
    as_json: AsJson = False,
) -> None:
    """Refuse a key from the next request on."""
    with told_errors():
        connect().revoke_key(key_id)
    show({"id": key_id, "revoked": True}, as_json=as_json, otherwise=lambda: note(f"{key_id} is revoked"))


def list_audit(
    team: Annotated[str | None, typer.Option(help="Of this team's keys only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show who changed what: calls with a key, and what operators did at the server."""
    with told_errors():
        found = list(islice(connect().audit(team), limit))
    rows = [(a.at.isoformat(), a.team_id or "-", a.key_id or "-", a.address, a.action, a.object_id) for a in found]
    headers = ("AT", "TEAM", "KEY", "ADDRESS", "ACTION", "OBJECT")
    show(found, as_json=as_json, otherwise=lambda: print_table(headers, rows))


def _state(key: KeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at < datetime.now(UTC):
        return "expired"
    if key.rotated_at is not None and key.expires_at is not None:
        return "rotated"
    return "live"
