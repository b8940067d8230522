"""Samples that wait for an approval, and replays of one item.

Old code goes on beside it, and knows no samples: a dispatcher of before would read the whole input of one, and all
failures for a replay. So dispatchers are replaced before the API.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS = (
    ("sample", sa.BigInteger()),
    ("sample_total", sa.BigInteger()),
    ("sampled_by", sa.Text()),
    ("approved_job_id", sa.Text()),
    ("rejected_at", sa.DateTime(timezone=True)),
    ("replay_index", sa.BigInteger()),
)


def upgrade() -> None:
    for name, kind in COLUMNS:
        op.add_column("jobs", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    for name, _ in reversed(COLUMNS):
        op.drop_column("jobs", name)
