"""What would have become of a request if the cache had been on: NULL but in shadow mode."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("requests", sa.Column("shadow", sa.String))


def downgrade() -> None:
    raise NotImplementedError("the ledger is never taken apart")
