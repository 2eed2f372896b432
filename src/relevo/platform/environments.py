"""Python environments: the platform's own when it satisfies a team's lock, otherwise one that uv builds once."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uv
from packaging.requirements import InvalidRequirement, Requirement

from relevo.errors import Invalid, JobFailed
from relevo.platform.logging import redact
from relevo.platform.settings import Settings

_BUILD_SECONDS = 1800
_REFUSED_OPTIONS = ("-e", "--editable", "-r", "--requirement", "-c", "--constraint")


def python_for(lock: Path | None, settings: Settings) -> Path:
    """The interpreter that runs a team's code under its lock.

    It is the platform's own when that has every pinned version. Otherwise it is that of an environment under
    ``home/environments``: the pins first, then everything that the platform has, so that Relevo itself is importable.
    Built once for each lock and platform, and appears only when it is whole. Thread- and process-safe.

    Args:
        lock: A file of pins in pip's requirements format, hashes welcome; a lock names its pins' dependencies too.
        settings: Where the home folder is.

    Raises:
        Invalid: When a line of the lock is no requirement.
        JobFailed: When the environment cannot be built; with uv's own words.
    """
    if lock is None:
        return Path(sys.executable)
    content = lock.read_text(encoding="utf-8")
    if all(is_satisfied(pin) for pin in pins(content, lock.name)):
        return Path(sys.executable)
    environments = settings.folder("environments")
    target = environments / _digest(content)
    python = target / "bin" / "python"
    if python.exists():
        return python
    with _locked(environments / f".{target.name}.lock"):
        if not python.exists():
            _build(lock, content, target)
    return python


def pins(content: str, name: str) -> list[Requirement]:
    r"""The requirements of a lock that apply to this interpreter.

    >>> [str(pin) for pin in pins("a==1 --hash=sha256:00  # why\nb==2; python_version < '3'\n--no-index", "lock")]
    ['a==1']

    Raises:
        Invalid: With file and line of what is no requirement.
    """
    found = []
    for number, line in _logical_lines(content):
        if line.startswith(_REFUSED_OPTIONS):
            raise Invalid(f"{name}:{number}: a lock names packages with versions, got {line[:200]!r}")
        if line.startswith("-"):
            continue  # where to find packages: uv reads it
        try:
            requirement = Requirement(line.split(" --", 1)[0].strip())
        except InvalidRequirement as error:
            raise Invalid(f"{name}:{number}: expected NAME==VERSION, got {line[:200]!r}: {error}") from None
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def _logical_lines(content: str) -> Iterator[tuple[int, str]]:
    """Lines joined at a trailing backslash, without comments and blanks, each with the number of its first."""
    joined, first = "", 1
    for number, line in enumerate([*content.splitlines(), ""], start=1):
        first = first if joined else number
        text = "" if line.lstrip().startswith("#") else line.split(" #", 1)[0].strip()
        joined = f"{joined} {text.removesuffix(chr(92))}".strip()
        if not text.endswith("\\") and joined:
            yield first, joined
            joined = ""


def is_satisfied(pin: Requirement) -> bool:
    """Whether the platform's own environment has a version that the requirement allows."""
    if pin.url is not None:
        return False
    try:
        return pin.specifier.contains(importlib.metadata.version(pin.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def _digest(content: str) -> str:
    """Names the environment by its lock and by the platform that it is built on."""
    parts = (content, sys.version, sys.prefix, *_site_packages())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _site_packages() -> tuple[str, ...]:
    return tuple(dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))))


def _build(lock: Path, content: str, target: Path) -> None:
    """Build next to the target and rename: what is there is whole. A draft that a crash left is built anew."""
    draft = target.with_name(f".building-{target.name}")
    failed = f"The environment of {lock.name} cannot be built"
    try:
        run_uv(failed, "venv", "--relocatable", "--no-project", "--clear", "--python", sys.executable, str(draft))
        python = draft / "bin" / "python"
        hashes = ["--require-hashes"] if "--hash" in content else []
        pinned = ["--no-deps", "--compile-bytecode", "--requirements", str(lock.absolute())]
        run_uv(failed, "pip", "install", "--python", str(python), *hashes, *pinned)
        [own] = draft.glob("lib/python*/site-packages")
        # addsitedir follows the .pth files in there too; its folders come after the environment's own.
        lines = [f"import site; site.addsitedir({folder!r})" for folder in _site_packages()]
        (own / "relevo-platform.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def run_uv(what_failed: str, *arguments: str) -> None:
    """Run uv, without the settings of whoever started this process.

    Args:
        what_failed: Begins the message of an error.
        *arguments: Of uv.

    Raises:
        JobFailed: With uv's own words.
    """
    command = [uv.find_uv_bin(), "--no-config", "--quiet", "--no-progress", *arguments]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    }
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_BUILD_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise JobFailed(f"{what_failed}: it was not done within {_BUILD_SECONDS // 60} minutes.") from None
    if done.returncode:
        words = redact(done.stderr.strip())[-2000:]
        raise JobFailed(
            f"{what_failed}: {words}",
            hint="Each pin needs a version that the package index has for this Python.",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock: one builder at a time, across processes; the kernel lets go when the holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
