"""In which bytes of an items object a shard's items are: a worker reads them and no others.

Rows that are there already read their whole object, as the code before did.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WHOLE_OBJECT_BYTES = 2**40


def upgrade() -> None:
    op.add_column("shards", sa.Column("items_offset", sa.BigInteger(), nullable=False, server_default="0"))
    whole = str(WHOLE_OBJECT_BYTES)
    op.add_column("shards", sa.Column("items_bytes", sa.BigInteger(), nullable=False, server_default=whole))
    op.alter_column("shards", "items_offset", server_default=None)
    op.alter_column("shards", "items_bytes", server_default=None)


def downgrade() -> None:
    op.drop_column("shards", "items_bytes")
    op.drop_column("shards", "items_offset")
