"""When a job was deleted; the upload that it uses and the job that it retries, as columns with indexes.

The two columns are computed from `input`, so that old code fills them too. Adding them rewrites the table: `jobs` is
locked for that time. While old code runs: it shows jobs that are marked as deleted, and a retry that it makes does not
name the upload; set JANUS_KEEP_DAYS after it has gone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A retry reads images of the upload of the job that it retries, and so must name it, however long the chain.
NAME_UPLOADS = """
WITH RECURSIVE chain AS (
    SELECT id, input ->> 'upload' AS upload FROM jobs WHERE NOT input ? 'retry_of'
    UNION ALL
    SELECT jobs.id, chain.upload FROM jobs JOIN chain ON jobs.input ->> 'retry_of' = chain.id
)
UPDATE jobs SET input = jobs.input || jsonb_build_object('upload', chain.upload)
FROM chain WHERE chain.id = jobs.id AND jobs.input ? 'retry_of'
"""
INDEXES = {
    "ix_jobs_ended": ("finished_at", "finished_at IS NOT NULL AND deleted_at IS NULL"),
    "ix_jobs_deleted": ("deleted_at", "deleted_at IS NOT NULL"),
    "ix_jobs_upload_id": ("upload_id", "upload_id IS NOT NULL"),
    "ix_jobs_retry_of": ("retry_of", "retry_of IS NOT NULL"),
}


def upgrade() -> None:
    op.execute(NAME_UPLOADS)
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    for name, source in (("upload_id", "upload"), ("retry_of", "retry_of")):
        computed = sa.Computed(f"(input ->> '{source}'::text)", persisted=True)
        op.add_column("jobs", sa.Column(name, sa.Text(), computed, nullable=True))
    for name, (column, where) in INDEXES.items():
        op.create_index(name, "jobs", [column], unique=False, postgresql_where=sa.text(where))


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, table_name="jobs")
    for column in ("retry_of", "upload_id", "deleted_at"):
        op.drop_column("jobs", column)
