"""What the parity proofs showed."""

import sqlalchemy as sa
from alembic import op

from relevo.platform.state import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "parity_reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("recorded_at", UtcDateTime(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parity_reports")),
    )
    with op.batch_alter_table("parity_reports", schema=None) as batch_op:
        batch_op.create_index("ix_parity_reports_model", ["model", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("parity_reports", schema=None) as batch_op:
        batch_op.drop_index("ix_parity_reports_model")

    op.drop_table("parity_reports")
