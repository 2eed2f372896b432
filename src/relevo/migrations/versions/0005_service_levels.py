"""What callers got from each endpoint, by minute and hour."""

import sqlalchemy as sa
from alembic import op

from relevo.platform.state import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "service_level_counts",
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("seconds", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begins_at", UtcDateTime(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("slow", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "seconds", "begins_at", name=op.f("pk_service_level_counts")),
    )
    with op.batch_alter_table("service_level_counts", schema=None) as batch_op:
        batch_op.create_index("ix_service_level_counts_begins", ["seconds", "begins_at"], unique=False)
    op.create_table(
        "service_level_marks",
        sa.Column("endpoint", sa.String(length=128), nullable=False),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_service_level_marks")),
    )


def downgrade() -> None:
    op.drop_table("service_level_marks")
    with op.batch_alter_table("service_level_counts", schema=None) as batch_op:
        batch_op.drop_index("ix_service_level_counts_begins")

    op.drop_table("service_level_counts")
