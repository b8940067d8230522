"""Indexes by which the next jobs of each team are found that are to be read or merged, however many wait behind them.

They are built in a transaction of their own, which keeps others from writing to `jobs` meanwhile: some seconds where
there are hundreds of thousands. Old code runs on beside them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATES = {
    "ix_jobs_unread": "state = 'accepted' AND cancel_requested_at IS NULL",
    "ix_jobs_unfinished": "state IN ('accepted', 'running', 'finishing')",
}


def upgrade() -> None:
    for name, condition in STATES.items():
        op.create_index(name, "jobs", ["team_id", "created_at", "id"], postgresql_where=sa.text(condition))


def downgrade() -> None:
    for name in STATES:
        op.drop_index(name, table_name="jobs")
