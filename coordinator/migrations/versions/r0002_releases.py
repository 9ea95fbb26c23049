"""Releases: the digest under which each version was first served."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this revision."""
    op.create_table(
        "releases",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("version", sa.String(18), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("releases")
