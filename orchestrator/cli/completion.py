"""What the Tab key offers for ids and names: asked of the server that runs; nothing, and silently, where none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from orchestrator.client import Client
from orchestrator.domain.jobs import JobState

SECONDS = 2.0  # a person waits with a finger on the key
MAX_OFFERED = 50
Offer = tuple[str, str]  # a word, and what it is


def _asked(find: Callable[[Client], Iterator[Offer]]) -> Callable[[str], list[Offer]]:
    """A completion that asks a server. Whatever goes wrong, nothing is offered and nothing is said."""

    def complete(incomplete: str) -> list[Offer]:
        from orchestrator.cli.connection import find_server

        try:
            client = find_server(max_retries=0)
            if client is None:
                return []
            asked = client.with_options(timeout_seconds=SECONDS)
            return [offer for offer in islice(find(asked), MAX_OFFERED) if offer[0].startswith(incomplete)]
        except Exception:
            return []

    return complete


@_asked
def complete_jobs(client: Client) -> Iterator[Offer]:
    """The team's newest jobs."""
    return ((job.id, f"{job.view.state} {job.view.kind} {job.view.name}") for job in client.jobs())


@_asked
def complete_ended_jobs(client: Client) -> Iterator[Offer]:
    return ((job.id, f"{job.view.state} {job.view.kind} {job.view.name}") for job in client.jobs() if job.ended)


@_asked
def complete_open_jobs(client: Client) -> Iterator[Offer]:
    states = (state for state in JobState if not state.ended)
    return (
        (job.id, f"{state} {job.view.kind} {job.view.name}") for state in states for job in client.jobs(state=state)
    )


@_asked
def complete_models(client: Client) -> Iterator[Offer]:
    """Those that are served now."""
    return ((model.name, model.family) for model in client.models() if model.served)


@_asked
def complete_teams(client: Client) -> Iterator[Offer]:
    return ((team.id, team.name) for team in client.teams())


@_asked
def complete_keys(client: Client) -> Iterator[Offer]:
    return ((key.id, key.name) for key in client.keys(None))
