"""Which jobs started or ended in the last minute is an index's answer: readers and finishers ask it every round.

Until now all jobs of each team were read for it, ended ones too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_jobs_started_at", "jobs", ["started_at", "team_id"], postgresql_where=sa.text("started_at IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_finished_at", "jobs", ["finished_at", "team_id"], postgresql_where=sa.text("finished_at IS NOT NULL")
    )
    op.drop_index("ix_jobs_ended", "jobs")


def downgrade() -> None:
    op.create_index(
        "ix_jobs_ended",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL AND deleted_at IS NULL"),
    )
    op.drop_index("ix_jobs_finished_at", "jobs")
    op.drop_index("ix_jobs_started_at", "jobs")
