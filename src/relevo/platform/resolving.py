"""From a list of requirements, which pins little, to a lock, which pins everything that they need."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from relevo.errors import Invalid
from relevo.platform.environments import is_satisfied, pins, run_uv

#: Lines that name another file: what they would read is not the model's own.
_OTHER_FILE = re.compile(r"-[erc]\b|--(?:editable|requirement|constraint)\b|.*@\s*file:", re.IGNORECASE)


def resolve(requirements: str, name: str) -> str:
    """A lock of everything that ``requirements`` need.

    What the platform has is preferred, so that an environment is built only where it must differ. Nothing outside is
    asked when the platform has it all; the package index is asked otherwise.

    Args:
        requirements: In pip's format, such as ``requirements.txt`` of an MLflow model.
        name: Of the list, for messages.

    Raises:
        Invalid: A line is no requirement, or names another file.
        JobFailed: There are no versions that fit together; with uv's own words.
    """
    for number, line in enumerate(requirements.splitlines(), start=1):
        if _OTHER_FILE.match(line.strip()):
            raise Invalid(f"{name}:{number}: expected a package with its version, got {line.strip()[:200]!r}")
    wanted = pins(requirements, name)
    if all(is_satisfied(each) for each in wanted) and (installed := _installed(wanted)) is not None:
        return _text(installed)
    return _compiled(requirements, name)


def _installed(wanted: Sequence[Requirement]) -> dict[str, str] | None:
    """The versions that the platform has of all that is wanted, and of what that needs; None when some is missing."""
    found: dict[str, str] = {}
    known: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in known:
            continue
        known.add((name, extras))
        if not is_satisfied(requirement):
            return None
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version
        waiting += _needs(distribution, extras)
    return found


def _needs(distribution: importlib.metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for line in distribution.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _compiled(requirements: str, name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="relevo-resolve-") as folder:
        source, lock = Path(folder, "requirements.txt"), Path(folder, "requirements.lock")
        source.write_text(requirements, encoding="utf-8")
        # uv keeps the versions that it finds in the file to write, where they fit.
        lock.write_text(_text(_platform()), encoding="utf-8")
        options = ["--generate-hashes", "--no-header", "--no-annotate", "--python", sys.executable]
        run_uv(f"The requirements of {name} cannot be met", "pip", "compile", *options, "-o", str(lock), str(source))
        return lock.read_text(encoding="utf-8")


def _platform() -> dict[str, str]:
    named = ((each.metadata["Name"], each.version) for each in importlib.metadata.distributions())
    return {canonicalize_name(name): version for name, version in named if name and name != "relevo"}


def _text(versions: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
