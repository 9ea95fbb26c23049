"""Counts by the hour of each log, from what is indexed; indexes for a log and where a model ran."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

HOUR_US = 3_600_000_000
NAMED = (("outcome", 16), ("jurisdiction", 6), ("place", 6), ("model", 128))


def upgrade() -> None:
    """Apply this revision."""
    op.create_index("ix_records_origin", "records", ["origin", "time_us"])
    op.create_index("ix_records_place", "records", ["place", "time_us"])
    op.create_index("ix_records_jurisdiction_place", "records", ["jurisdiction", "place", "time_us"])
    _count(by_log=True)


def downgrade() -> None:
    """Undo this revision."""
    _count(by_log=False)
    op.drop_index("ix_records_jurisdiction_place", "records")
    op.drop_index("ix_records_place", "records")
    op.drop_index("ix_records_origin", "records")


def _count(*, by_log: bool) -> None:
    """Make the table of counts, and fill it from the records."""
    op.drop_table("tallies")
    origin = [sa.Column("origin", sa.String(128), primary_key=True)] if by_log else []
    tallies = op.create_table(
        "tallies",
        sa.Column("hour", sa.BigInteger(), primary_key=True, autoincrement=False),
        *origin,
        sa.Column("type", sa.String(16), primary_key=True),
        sa.Column("outcome", sa.String(16), primary_key=True),
        sa.Column("break_glass", sa.Boolean(), primary_key=True),
        sa.Column("jurisdiction", sa.String(6), primary_key=True),
        sa.Column("place", sa.String(6), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )
    records = sa.table(
        "records",
        sa.column("time_us", sa.BigInteger),
        *map(sa.column, ("origin", "type", "break_glass", "stands_for")),
        *(sa.column(name, sa.String(length)) for name, length in NAMED),
    )
    own = records.c
    said = {name: sa.func.coalesce(own[name], "") for name, _ in NAMED}
    values = {
        "hour": own.time_us // sa.literal_column(str(HOUR_US), sa.BigInteger),
        **({"origin": own.origin} if by_log else {}),
        "type": own.type,
        "outcome": said["outcome"],
        "break_glass": own.break_glass,
        "jurisdiction": said["jurisdiction"],
        "place": said["place"],
        "model": said["model"],
    }
    counted = sa.select(*values.values(), sa.func.sum(own.stands_for)).group_by(*values.values())
    op.execute(tallies.insert().from_select([*values, "count"], counted))
