"""Counts by the hour, where a model ran, and an index for each filter; the records are indexed anew."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SEARCHED = ("action", "data_class", "jurisdiction", "purpose", "placement", "problem")


def upgrade() -> None:
    """Apply this revision; what is indexed is forgotten, and comes back from the logs."""
    op.execute("DELETE FROM records")
    op.execute("DELETE FROM logs")
    with op.batch_alter_table("records") as table:
        table.add_column(sa.Column("place", sa.String(6)))
        table.add_column(sa.Column("stands_for", sa.BigInteger(), nullable=False))
    for name in SEARCHED:
        op.create_index(f"ix_records_{name}", "records", [name, "time_us"])
    op.create_table(
        "tallies",
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(16), primary_key=True),
        sa.Column("outcome", sa.String(16), primary_key=True),
        sa.Column("break_glass", sa.Boolean(), primary_key=True),
        sa.Column("jurisdiction", sa.String(6), primary_key=True),
        sa.Column("place", sa.String(6), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("tallies")
    for name in SEARCHED:
        op.drop_index(f"ix_records_{name}", "records")
    with op.batch_alter_table("records") as table:
        table.drop_column("stands_for")
        table.drop_column("place")
