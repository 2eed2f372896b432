"""What a load found, beside its version; and what holds a version back from being collected."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from relevo.platform.state import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in _columns():
        op.add_column("dataset_versions", column)
    op.create_table(
        "dataset_holds",
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("held_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("model", "source", "version", "holder", name=op.f("pk_dataset_holds")),
    )


def downgrade() -> None:
    op.drop_table("dataset_holds")
    with op.batch_alter_table("dataset_versions", schema=None) as batch_op:
        for column in _columns():
            batch_op.drop_column(column.name)


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("checks", sa.JSON(), nullable=False, server_default=sa.text("'[]'")),
        sa.Column("changes", sa.JSON(), nullable=False, server_default=sa.text("'[]'")),
        sa.Column("mode", sa.String(length=16), nullable=False, server_default="full"),
        sa.Column("quarantined", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("quarantine_version", sa.Integer(), nullable=True),
        sa.Column("origin", sa.String(length=64), nullable=False, server_default=""),
        sa.Column("collected_at", UtcDateTime(), nullable=True),
        sa.Column("removed_at", UtcDateTime(), nullable=True),
    ]
