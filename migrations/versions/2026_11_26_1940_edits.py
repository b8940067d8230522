"""What people make of results, and failures by their code.

Old code runs beside it: it neither reads nor writes what is new. The index is built while nobody writes failures, which
takes a second for a million of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "edits",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("caption", sa.Text(), nullable=True),
        sa.Column("approved_at", time, nullable=True),
        sa.Column("edited_by", sa.Text(), nullable=False),
        sa.Column("at", time, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_edits_job_id"),
        sa.PrimaryKeyConstraint("job_id", "index", name="pk_edits"),
    )
    op.create_index("ix_failures_job_id_code_index", "failures", ["job_id", "code", "index"])


def downgrade() -> None:
    op.drop_index("ix_failures_job_id_code_index", "failures")
    op.drop_table("edits")
