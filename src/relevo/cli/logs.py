"""``relevo logs``: what processes and jobs wrote."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from relevo.cli.terminal import say, size, table
from relevo.errors import Conflict, NotFound, nearest

LOOK_EVERY_SECONDS = 0.2
_DIGEST = re.compile(r"-[0-9a-f]{8}$")


def logs(
    name: Annotated[
        str | None, typer.Argument(help="A process such as control, or a release such as deliver-shop-r1.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 40,
) -> None:
    """Show the log of a process or of a job; without a name list them."""
    from relevo.cli.client import nearest_settings

    root = nearest_settings().root
    found = find_logs(root)
    if name is None:
        newest_first = sorted(found.items(), key=lambda one: -one[1].stat().st_mtime)
        rows = [[name, size(path.stat().st_size), _moment(path.stat().st_mtime)] for name, path in newest_first]
        table(["log", "size", "last line at (UTC)"], rows, empty=f"No log under {root}; has `relevo up` run here?")
        return
    _show(_one_of(found, name, root), lines, follow=follow)


def find_logs(root: Path) -> dict[str, Path]:
    """Every log of a home by name: the processes', then those of the jobs, by the release that they worked for."""
    folder = root / "logs"
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.log"))}
    for path in sorted((root / "jobs").glob("*/child.log"), key=lambda one: one.stat().st_mtime):
        short = _DIGEST.sub("", path.parent.name)
        found[short if short not in found else path.parent.name] = path
    return found


def _one_of(found: dict[str, Path], name: str, root: Path) -> Path:
    if name in found:
        return found[name]
    beginning = [each for each in found if each.startswith(name)]
    if len(beginning) == 1:
        return found[beginning[0]]
    if beginning:
        raise Conflict(f"{name!r} may mean {', '.join(beginning)}.", hint="Write more of the name.")
    near = nearest(name, found)
    raise NotFound(
        f"There is no log {name!r} under {root}" + (f"; did you mean {near!r}?" if near else "."),
        hint=f"There are: {', '.join(found) or 'none'}.",
    )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _show(path: Path, lines: int, *, follow: bool) -> None:
    if not path.stat().st_size and not follow:
        say("It is empty: nothing was written.", "dim")
    file = path.open(errors="replace")
    try:
        sys.stdout.writelines(deque(file, maxlen=lines))
        while follow:
            text = file.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            if not text:
                time.sleep(LOOK_EVERY_SECONDS)
                if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:  # it was rotated
                    file.close()
                    file = path.open(errors="replace")
    finally:
        file.close()
