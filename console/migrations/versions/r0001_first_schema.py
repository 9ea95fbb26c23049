"""The first schema: accounts, sessions, failed sign-ins, saved searches."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this revision."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(255), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(63), _owner(), nullable=False, index=True),
        sa.Column("form_key", sa.String(64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "failures",
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("key", sa.String(63), primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("began_ms", sa.BigInteger(), nullable=False),
        sa.Column("locked_until_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "views",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("account", sa.String(63), _owner(), nullable=False, index=True),
        sa.Column("query", sa.JSON(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Undo this revision."""
    for name in ("views", "failures", "sessions", "accounts"):
        op.drop_table(name)


def _owner() -> sa.ForeignKey:
    return sa.ForeignKey("accounts.name", ondelete="CASCADE")
