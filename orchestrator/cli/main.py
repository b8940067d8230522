"""`janus`: the command line."""

from __future__ import annotations

import typer

from orchestrator.cli import (
    administration,
    bench,
    doctor,
    evaluate,
    jobs,
    models,
    replay,
    report,
    roundtrip,
    servers,
    submit,
    train,
    webhooks,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bulk image captioning and image generation with Janus models. "
    "Without JANUS_URL, commands use the local stack, which caption, generate and roundtrip start.",
)
app.command()(submit.caption)
app.command()(submit.generate)
app.command()(roundtrip.roundtrip)
app.command()(replay.replay)
app.command()(evaluate.evaluate)
app.command()(train.train)
app.add_typer(jobs.app, name="jobs")
app.command()(report.report)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(administration.teams, name="teams")
app.add_typer(administration.keys, name="keys")
app.command("audit")(administration.list_audit)
for command in (
    doctor.doctor,
    servers.up,
    servers.down,
    servers.status,
    servers.api,
    servers.dispatcher,
    servers.worker,
):
    app.command()(command)
