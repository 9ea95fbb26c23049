"""The first schema: where each log is indexed to, and its records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SEARCHED = ("subject", "principal", "outcome", "break_glass", "model", "type")


def upgrade() -> None:
    """Apply this revision."""
    op.create_table(
        "logs",
        sa.Column("origin", sa.String(128), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "records",
        sa.Column("origin", sa.String(128), primary_key=True),
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("action", sa.String(32)),
        sa.Column("outcome", sa.String(16)),
        sa.Column("principal", sa.String(128)),
        sa.Column("subject", sa.String(64)),
        sa.Column("model", sa.String(128)),
        sa.Column("data_class", sa.String(32)),
        sa.Column("jurisdiction", sa.String(6)),
        sa.Column("purpose", sa.String(16)),
        sa.Column("placement", sa.String(128)),
        sa.Column("problem", sa.String(32)),
        sa.Column("break_glass", sa.Boolean(), nullable=False),
        sa.Column("reference", sa.String(160)),
        sa.Column("about", sa.String(160)),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_records_time", "records", ["time_us", "origin", "position"])
    op.create_index("ix_records_id", "records", ["id"])
    op.create_index("ix_records_about", "records", ["about"])
    for name in SEARCHED:
        op.create_index(f"ix_records_{name}", "records", [name, "time_us"])


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("records")
    op.drop_table("logs")
