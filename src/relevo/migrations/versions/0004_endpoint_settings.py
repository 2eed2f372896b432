"""How the gateway treats an endpoint's requests, of which the log was one part."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_endpoints = sa.table(
    "endpoints", sa.column("name", sa.Text()), sa.column("log", sa.Text()), sa.column("settings", sa.JSON())
)


def upgrade() -> None:
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("settings", sa.JSON(), nullable=True))
    connection = op.get_bind()
    for name, log in connection.execute(sa.select(_endpoints.c.name, _endpoints.c.log)).all():
        connection.execute(sa.update(_endpoints).where(_endpoints.c.name == name).values(settings={"log": log}))
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.alter_column("settings", existing_type=sa.JSON(), nullable=False)
        batch_op.drop_column("log")


def downgrade() -> None:
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("log", sa.Text(), nullable=False, server_default="durable"))
    connection = op.get_bind()
    for name, settings in connection.execute(sa.select(_endpoints.c.name, _endpoints.c.settings)).all():
        connection.execute(sa.update(_endpoints).where(_endpoints.c.name == name).values(log=settings["log"]))
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.drop_column("settings")
