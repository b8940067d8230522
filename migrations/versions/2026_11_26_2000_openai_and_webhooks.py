"""Files and batches of OpenAI clients; webhooks and what is to be sent to them; the size of what a model draws.

All of it is new and empty, so nothing waits. While old code runs: jobs that it ends are told to no webhook, and its
workers leave a model's size as it was.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
OPEN_BATCHES = "state IN ('validating', 'in_progress', 'cancelling', 'finalizing')"


def upgrade() -> None:
    op.add_column("models", sa.Column("image_size", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("webhook", JSONB(), nullable=True))
    _create_files()
    _create_batches()
    _create_webhooks()


def _create_files() -> None:
    op.create_table(
        "openai_files",
        sa.Column("id", sa.Text(), nullable=False),
        _team(),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        _time("created_at", default=True),
        _time("expires_at"),
        _time("deleted_at"),
        sa.CheckConstraint("purpose IN ('batch', 'batch_output')", name=op.f("ck_openai_files_purpose")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_openai_files_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_openai_files")),
        sa.UniqueConstraint("key", name=op.f("uq_openai_files_key")),
    )
    op.create_index("ix_openai_files_team_id_created_at_id", "openai_files", ["team_id", "created_at", "id"])
    for name, column in (("deleted", "deleted_at"), ("expires", "expires_at")):
        where = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"ix_openai_files_{name}", "openai_files", [column], postgresql_where=where)


def _create_batches() -> None:
    times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    op.create_table(
        "openai_batches",
        sa.Column("id", sa.Text(), nullable=False),
        _team(),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", JSONB(), nullable=True),
        sa.Column("output_seconds", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("num_refused", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("errors", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("output_file_id", sa.Text(), nullable=True),
        sa.Column("error_file_id", sa.Text(), nullable=True),
        _time("created_at", default=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        *(_time(f"{name}_at") for name in times),
        sa.CheckConstraint(
            "state IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', "
            "'cancelled')",
            name=op.f("ck_openai_batches_state"),
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_openai_batches_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_openai_batches")),
    )
    op.create_index("ix_openai_batches_team_id_created_at_id", "openai_batches", ["team_id", "created_at", "id"])
    op.create_index("ix_openai_batches_open", "openai_batches", ["created_at"], postgresql_where=sa.text(OPEN_BATCHES))
    where = sa.text("job_id IS NOT NULL")
    op.create_index("ix_openai_batches_job_id", "openai_batches", ["job_id"], postgresql_where=where)


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        _team(),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        _time("created_at", default=True),
        _time("delivered_at"),
        _time("failed_at"),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_webhooks_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_team_id", "webhooks", ["team_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        _team(),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("webhook_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _time("created_at", default=True),
        _time("next_at", default=True),
        _time("ended_at"),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_deliveries_team_id")),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_open", "deliveries", ["next_at"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index("ix_deliveries_ended", "deliveries", ["ended_at"], postgresql_where=sa.text("ended_at IS NOT NULL"))


def downgrade() -> None:
    for table in ("deliveries", "webhooks", "openai_batches", "openai_files"):
        op.drop_table(table)
    op.drop_column("jobs", "webhook")
    op.drop_column("models", "image_size")


def _team() -> sa.Column[str]:
    return sa.Column("team_id", sa.Text(), nullable=False)


def _time(name: str, *, default: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=NOW if default else None, nullable=not default)
