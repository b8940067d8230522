"""`janus doctor`: what works from here, and what to do about what does not."""

from __future__ import annotations

from collections.abc import Callable

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import ERROR, AsJson, print_json, told_errors
from orchestrator.client import Client, ClientError


def doctor(as_json: AsJson = False) -> None:
    """Check server, key, database, queue, store, presigned URLs and workers from this machine."""
    with told_errors():
        client = connect()
    checks: list[tuple[str, Callable[[Client], str]]] = [
        ("server", _server),
        ("key", _key),
        ("presigned URLs", _presigned),
        ("workers", _workers),
    ]
    found = [(name, *_try(check, client)) for name, check in checks]
    if as_json:
        print_json([{"check": name, "ok": ok, "finding": text} for name, ok, text in found])
    else:
        for name, ok, text in found:
            print(f"{'ok  ' if ok else 'BAD '} {name}: {text}")
    if not all(ok for _, ok, _ in found):
        raise typer.Exit(ERROR)


def _try(check: Callable[[Client], str], client: Client) -> tuple[bool, str]:
    try:
        return True, check(client)
    except ClientError as error:
        return False, str(error)


def _server(client: Client) -> str:
    checks = client.readiness().checks
    return f"{client.url} is ready ({', '.join(f'{name} {answer}' for name, answer in checks.items())})"


def _key(client: Client) -> str:
    me = client.whoami()
    return f"team {me.team.name}, scopes {', '.join(me.scopes)}"


def _presigned(client: Client) -> str:
    client.check_transfer()
    return "an object went to the store and came back by URLs that the server signed"


def _workers(client: Client) -> str:
    alive = [worker for worker in client.workers() if worker.alive]
    if not alive:
        raise ClientError("no worker is alive; jobs will wait. Start one with `janus worker --model NAME`")
    return f"{len(alive)} alive, serving {', '.join(sorted({model for w in alive for model in w.models}))}"
