"""`janus webhooks …`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.connection import connect
from orchestrator.cli.output import AsJson, note, print_table, show, told_errors
from orchestrator.schemas import WebhookView

app = typer.Typer(no_args_is_help=True, help="Webhooks: addresses that hear of the end of each of the team's jobs.")


@app.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are posted.")], as_json: AsJson = False
) -> None:
    """Add an address. The secret that signs its messages is shown this once."""
    with told_errors():
        made = connect().create_webhook(url)
    show(made, as_json=as_json, otherwise=lambda: print(made.secret))
    if not as_json:
        note(f"{made.id}; keep the secret, it is not shown again")


@app.command("list")
def list_webhooks(as_json: AsJson = False) -> None:
    """The team's addresses, and how they answered last."""
    with told_errors():
        found = connect().webhooks()
    rows = [(w.id, w.url, w.delivered_at or "never", _trouble(w)) for w in found]
    headers = ("ID", "URL", "DELIVERED", "TROUBLE")
    show(found, as_json=as_json, otherwise=lambda: print_table(headers, rows))


@app.command("delete")
def delete_webhook(
    webhook_id: Annotated[str, typer.Argument(metavar="ID", help="As `janus webhooks list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Tell an address nothing more."""
    with told_errors():
        connect().delete_webhook(webhook_id)
    told = f"{webhook_id} is deleted"
    show({"id": webhook_id, "deleted": True}, as_json=as_json, otherwise=lambda: note(told))


def _trouble(webhook: WebhookView) -> str:
    """What was wrong last, unless something was delivered since."""
    if webhook.failed_at is None or (webhook.delivered_at is not None and webhook.delivered_at > webhook.failed_at):
        return ""
    return f"{webhook.failed_at:%Y-%m-%d %H:%M} UTC: {webhook.trouble}"
