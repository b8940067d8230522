"""Since when a shard is in the queue: `published_at` says when its message was last published, which may be again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("shards", sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE shards SET dispatched_at = published_at WHERE state = 'dispatched'")


def downgrade() -> None:
    op.drop_column("shards", "dispatched_at")
