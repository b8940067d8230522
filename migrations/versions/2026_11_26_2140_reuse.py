"""Results that may be used again. Old code goes on beside it: its jobs are of `reuse`, and it adds and finds none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("num_reused", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("reuse", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("shards", sa.Column("num_reused", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "reusable_parts",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("identities", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("item_indexes", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_reusable_parts_job_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_reusable_parts")),
    )
    op.create_index(
        op.f("ix_reusable_parts_identities"),
        "reusable_parts",
        ["identities"],
        postgresql_using="gin",
        postgresql_with={"fastupdate": False},
    )
    op.create_index(op.f("ix_reusable_parts_job_id"), "reusable_parts", ["job_id"])
    op.create_index(op.f("ix_reusable_parts_created_at"), "reusable_parts", ["created_at"])


def downgrade() -> None:
    op.drop_table("reusable_parts")
    op.drop_column("shards", "num_reused")
    op.drop_column("jobs", "reuse")
    op.drop_column("jobs", "num_reused")
