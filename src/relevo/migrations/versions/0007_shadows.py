"""The shadow of a route, and the state of a release whose version is one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BEFORE = "state IN ('training', 'waiting_for_approval', 'canary')"
_NOW = "state IN ('training', 'waiting_for_approval', 'shadow', 'canary')"


def upgrade() -> None:
    with op.batch_alter_table("routes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("shadow", sa.JSON(), nullable=True))
    _one_open_release(_NOW)


def downgrade() -> None:
    _one_open_release(_BEFORE)
    with op.batch_alter_table("routes", schema=None) as batch_op:
        batch_op.drop_column("shadow")


def _one_open_release(open_states: str) -> None:
    is_open = sa.text(open_states)
    op.drop_index("uq_releases_open", "releases")
    op.create_index(
        "uq_releases_open", "releases", ["model"], unique=True, sqlite_where=is_open, postgresql_where=is_open
    )
