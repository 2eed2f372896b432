"""Fixtures that every test may use: a state store on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import faulthandler
import importlib
import pkgutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import relevo
from relevo.platform.state import State, metadata

sys.path.insert(0, str(Path(__file__).parent))

from postgresql import postgresql_url
from redis_server import forget, redis_url


def pytest_unconfigure() -> None:
    """A run whose process does not end says what it waits for, and fails, instead of hanging."""
    faulthandler.dump_traceback_later(60, exit=True)


def _import_every_table() -> None:
    for module in pkgutil.walk_packages(relevo.__path__, "relevo."):
        if module.name.endswith((".store", ".clock", ".activities")):
            importlib.import_module(module.name)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a real PostgreSQL server on which databases may be made."""
    with postgresql_url() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a real Redis."""
    with redis_url() as url:
        yield url


@pytest.fixture
def redis_place(redis_server: str) -> Iterator[str]:
    """The URL of an online store in Redis, with a prefix of its own."""
    prefix = f"relevo-test-{uuid.uuid4().hex[:12]}"
    yield f"{redis_server}?prefix={prefix}"
    forget(redis_server, prefix)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    """A state store without any table; once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        store = State(f"sqlite:///{tmp_path / 'state.db'}")
        yield store
        store.close()
        return
    name = f"relevo_test_{uuid.uuid4().hex[:12]}"
    url = sa.make_url(request.getfixturevalue("postgresql"))
    server = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    store = State(url.set(database=name).render_as_string(hide_password=False))
    try:
        yield store
    finally:
        store.close()
        with server.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        server.dispose()


@pytest.fixture
def state(empty_state: State) -> State:
    """An empty state store with every table; that the migrations make the same is a test of its own."""
    _import_every_table()
    with empty_state.transaction() as tx:
        metadata.create_all(tx)
    return empty_state
