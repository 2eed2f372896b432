"""Runs the migrations on the connection that ``app.installation`` opened."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from relevo.platform.state import UtcDateTime, metadata


def render_item(kind: str, item: object, autogen: AutogenContext) -> str | Literal[False]:
    """Our own column type by its plain name."""
    if kind == "type" and isinstance(item, UtcDateTime):
        autogen.imports.add("from relevo.platform.state import UtcDateTime")
        return "UtcDateTime()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    render_item=render_item,
    include_name=lambda name, kind, _: kind != "table" or name in metadata.tables,
)
with context.begin_transaction():
    context.run_migrations()
