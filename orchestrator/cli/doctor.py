"""`janus doctor`: what works from here and on the servers, and what to do about what does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import typer

from orchestrator.cli.connection import connect, local_environment, local_trouble
from orchestrator.cli.output import ERROR, AsJson, print_json, printable_lines, told_errors
from orchestrator.client import Client, ClientError, ServerError, TransferFailed
from orchestrator.domain.disks import is_nearly_full
from orchestrator.schemas import FindingView, Readiness
from orchestrator.settings import default_home

MAX_SKEW_SECONDS = 60.0


def doctor(as_json: AsJson = False) -> None:
    """Look for faults of this machine, the server, its database, queue, store and workers. Exit 1 where there is one.

    With a key of the scope `admin` the servers are asked for what they see. Where the API cannot answer, and this
    machine has the servers' settings or the local stack, they are looked at from here.
    """
    with told_errors():
        client = connect(max_retries=0)
    findings = [*_seen_from_here(client), *_seen_by_servers(client)]
    if as_json:
        print_json(findings)
    else:
        for found in findings:
            print(f"{'ok  ' if found.ok else 'BAD '} {found.check}: {printable_lines(found.finding)}")
    if not all(found.ok for found in findings):
        raise typer.Exit(ERROR)


def _seen_from_here(client: Client) -> list[FindingView]:
    checks: list[tuple[str, Callable[[Client], str]]] = [
        ("server", _server),
        ("clock", _clock),
        ("key", _key),
        ("presigned URLs", _presigned),
        ("workers", _workers),
        ("disk", _disk),
    ]
    findings: list[FindingView] = []
    for name, check in checks:
        findings.append(_try(name, check, client))
        if name == "server" and not _answers(client):
            break  # the others would say the same
    trouble = local_trouble()
    if trouble is not None:
        told = "\n".join(trouble) or "its processes stay up"
        findings.append(FindingView(check="local stack", ok=not trouble, finding=told))
    return findings


def _try(name: str, check: Callable[[Client], str], client: Client) -> FindingView:
    try:
        return FindingView(check=name, ok=True, finding=check(client))
    except ClientError as error:
        return FindingView(check=name, ok=False, finding=str(error))


def _answers(client: Client) -> bool:
    try:
        return httpx.get(f"{client.url}/healthz", timeout=10).is_success
    except httpx.TransportError:
        return False


def _get(client: Client, path: str) -> httpx.Response:
    try:
        return httpx.get(f"{client.url}{path}", timeout=60)
    except httpx.TransportError as error:
        raise ClientError(
            f"{client.url} does not answer: {error}. Is the API running (`janus status`, `docker compose ps api`), and "
            "is JANUS_URL its address?"
        ) from error


def _server(client: Client) -> str:
    answer = _get(client, "/readyz")
    try:
        checks = Readiness.model_validate_json(answer.content).checks
    except ValueError:
        raise ClientError(
            f"{client.url} answers {answer.status_code}, but not as Janus does: is JANUS_URL right?"
        ) from None
    wrong = [f"{name} {answer}" for name, answer in checks.items() if answer != "ok"]
    if wrong:
        raise ClientError(f"{client.url} is up and cannot work: {'; '.join(wrong)}")
    return f"{client.url} is ready ({', '.join(f'{name} {answer}' for name, answer in checks.items())})"


def _clock(client: Client) -> str:
    date = _get(client, "/healthz").headers.get("date")
    if date is None:
        return "the server does not tell its time"
    ahead = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(ahead) > MAX_SKEW_SECONDS:
        word = "ahead of" if ahead > 0 else "behind"
        raise ClientError(
            f"this machine's clock is {abs(ahead):.0f} s {word} the server's: signed links may be refused. Run a time "
            "service (chrony, systemd-timesyncd) on both."
        )
    return f"this machine and the server agree within {MAX_SKEW_SECONDS:.0f} s"


def _key(client: Client) -> str:
    me = client.whoami()
    return f"team {me.team.name}, scopes {', '.join(me.scopes)}"


def _presigned(client: Client) -> str:
    try:
        endpoint = client.check_transfer()
    except TransferFailed as error:
        if error.status is None:
            hint = "links lead to JANUS_S3_PUBLIC_ENDPOINT: set it, at the API, to an address that clients reach"
        elif error.status == httpx.codes.FORBIDDEN:
            hint = (
                "the signature covers host and port: JANUS_S3_PUBLIC_ENDPOINT must be what clients use, a proxy must "
                "pass the Host header on unchanged, and keys, region and clocks of API and store must agree"
            )
        else:
            hint = "is JANUS_S3_PUBLIC_ENDPOINT the store, and has it the bucket?"
        raise ClientError(f"{error}. {hint}") from error
    return f"an object went to {endpoint} and came back by links that the server signed"


def _workers(client: Client) -> str:
    alive = [worker for worker in client.workers() if worker.alive]
    if not alive:
        raise ClientError("no worker is alive; jobs will wait. Start one with `janus worker --model NAME`")
    return f"{len(alive)} alive, serving {', '.join(sorted({model for w in alive for model in w.models}))}"


def _disk(client: Client) -> str:
    home = default_home()
    folder = next(path for path in (home, *home.parents) if path.exists())
    usage = shutil.disk_usage(folder)
    told = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB are free at {folder}"
    if is_nearly_full(usage.total, usage.free):
        raise ClientError(f"{told}: make room, or point JANUS_HOME to a larger disk")
    return told


# --- The servers ------------------------------------------------------------------------------------------------------


def _seen_by_servers(client: Client) -> list[FindingView]:
    try:
        return client.diagnosis()
    except ServerError as error:
        if error.status in (401, 403):
            note = "not looked at: that needs a key with the scope admin"
            return [FindingView(check="servers", ok=True, finding=note)]
    except ClientError:
        pass
    environment = os.environ if os.environ.get("JANUS_DATABASE_URL") else local_environment()
    if environment is None:
        note = "not looked at: the API cannot say, and this machine does not have the servers' settings"
        return [FindingView(check="servers", ok=False, finding=note)]
    return _seen_by_admin(environment)


def _seen_by_admin(environment: Mapping[str, str]) -> list[FindingView]:
    """The same from this machine: the command line itself imports no server."""
    command = [sys.executable, "-m", "orchestrator.admin", "diagnose"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except ValueError:
        return [FindingView(check="servers", ok=False, finding=f"not looked at: {done.stderr.strip()[-500:]}")]
    return [FindingView(**one) for one in found]
