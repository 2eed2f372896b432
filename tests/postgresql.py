"""A real PostgreSQL for the tests: the one that answers, else one that is started for this run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from ports import free_port

DEFAULT_URL = os.environ.get("RELEVO_TEST_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")


@contextmanager
def postgresql_url() -> Iterator[str]:
    """The URL of a server on which databases may be made; raises when none runs and none can be started."""
    if _answers(DEFAULT_URL):
        yield DEFAULT_URL
        return
    folder = Path(tempfile.mkdtemp(prefix="relevo-postgresql-"))
    # PostgreSQL refuses to run as root; the package brings a user of its own for that.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    data, programs = folder / "data", _programs()
    run = [*user, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True)
    port = free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    control = [*user, str(programs / "pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def _programs() -> Path:
    """The folder with ``initdb`` and ``pg_ctl``: Debian keeps it off the PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    if installed:
        return installed[0]
    if on_path:
        return Path(on_path).parent
    raise FileNotFoundError("The tests need PostgreSQL; run tests/prerequisites.sh, or set RELEVO_TEST_POSTGRESQL.")
