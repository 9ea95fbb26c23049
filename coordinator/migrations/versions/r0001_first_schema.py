"""The first schema: devices, enrolment codes, jobs, the registry's serial."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this revision."""
    op.create_table(
        "devices",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("public_key", sa.String(64), nullable=False, unique=True),
        sa.Column("jurisdiction", sa.String(6), nullable=False),
        sa.Column("enrolled", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "held_subjects",
        sa.Column("pseudonym", sa.String(64), primary_key=True),
        sa.Column("device_id", sa.String(63), sa.ForeignKey("devices.id"), primary_key=True),
    )
    op.create_table(
        "enrolment_codes",
        sa.Column("code_hash", sa.String(64), primary_key=True),
        sa.Column("jurisdiction", sa.String(6), nullable=False),
        sa.Column("subjects", sa.JSON(), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("version", sa.String(18), nullable=False),
        sa.Column("principal", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(200)),
        sa.Column("cohort_minimum", sa.Integer(), nullable=False),
        sa.Column("cohort", sa.Integer(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.JSON()),
    )
    op.create_table(
        "registry",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("serial", sa.Integer(), nullable=False),
    )
    op.execute("INSERT INTO registry (id, serial) VALUES (1, 0)")


def downgrade() -> None:
    """Undo this revision."""
    for table in ("registry", "jobs", "enrolment_codes", "held_subjects", "devices"):
        op.drop_table(table)
