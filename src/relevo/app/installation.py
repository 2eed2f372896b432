"""Makes an installation ready to start: folders, keys, migrated state, and on the first start an admin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

import relevo.migrations
from relevo.features.storage import open_storage
from relevo.identity.service import Identity
from relevo.platform.settings import Settings
from relevo.platform.state import State, Transaction

if TYPE_CHECKING:
    from alembic.config import Config


def prepare(settings: Settings, keep: Callable[[str], object]) -> str | None:
    """Make everything ready; gives the first admin token on an empty installation, else None.

    Args:
        settings: Where the installation is.
        keep: Puts the first token away. Called before it is committed: a crash in between leaves a token that is worth
            nothing, and the next start makes another. The other way round nobody could get in.
    """
    os.umask(0o077)  # keys, databases and logs are for this user alone
    state = State(settings.state_database)
    try:
        with state.transaction() as tx:
            migrate(tx)
        with state.transaction() as tx:
            token = Identity(state).bootstrap(tx)
            if token is not None:
                keep(token)
        return token
    finally:
        state.close()


def require_online_store(settings: Settings) -> None:
    """Refuse a ``RELEVO_ONLINE_URL`` that no gateway worker could open; a Redis that is away may come back.

    Raises:
        Invalid: It is no URL of Redis.
        Unavailable: The extra ``redis`` is not installed.
    """
    if settings.online_url is not None:
        open_storage(settings.online_store).close()  # connects with its first command


def migrate(tx: Transaction) -> None:
    """Bring the state store to the newest revision, in the caller's transaction."""
    if current_revision(tx) == newest_revision():
        return
    from alembic import command  # 0.5 s to import, needed once a release

    command.upgrade(configuration(tx), "head")


def configuration(tx: Transaction) -> Config:
    """Alembic's configuration for this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()))
    config.attributes["connection"] = tx
    return config


def current_revision(tx: Transaction) -> str | None:
    """The revision that the state store is at; None when it is empty."""
    if not sa.inspect(tx).has_table("alembic_version"):
        return None
    revision: str | None = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    return revision


def newest_revision() -> str:
    """The newest revision that this code has; files are named ``NNNN_what.py``, and their number is the revision."""
    return max(path.name.split("_")[0] for path in (_folder() / "versions").glob("[0-9]*.py"))


def _folder() -> Path:
    return Path(relevo.migrations.__path__[0])
