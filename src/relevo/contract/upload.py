"""A project folder as it travels from the command line to the control plane: one zip."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relevo.contract.model import Contract
from relevo.contract.parsing import FILE_NAME, Parsed, parse_with_lines
from relevo.contract.reading import meant
from relevo.contract.snapshot import LOCK_NAME, MAX_FILES, is_safe, pack, unpack
from relevo.errors import Invalid, NotFound, TooLarge

MAX_UPLOAD_BYTES = 50 * 1024 * 1024
ORIGIN_NAME = "relevo-origin.json"  # where the folder came from; not part of the snapshot
_LEFT_OUT = ("__pycache__", ".pyc", ".pyo", ".egg-info")


@dataclass(frozen=True, slots=True)
class Upload:
    """A project: the contract's text, what it says, the files of its snapshot, and the commit it came from."""

    text: str
    parsed: Parsed
    files: dict[str, bytes]  # package, files of sources and lock, by path
    git_commit: str | None  # ends with "-dirty" when the folder held changes that were not committed


def read_project(folder: Path) -> bytes:
    """The project in ``folder`` as the bytes of one zip: contract, package, lock, and the git commit.

    Hidden files, compiled Python and links that lead out of the project stay behind. Equal folders give equal bytes.

    Raises:
        NotFound: There is no ``relevo.yaml``.
        Invalid: The contract has mistakes, or the package's folder is missing.
        TooLarge: The zip would have more than 50 MB; the message names the largest file.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise NotFound(f"There is no {FILE_NAME} in {folder}.", hint="Make a project with: relevo init NAME")
    text = _decoded(path.read_bytes())
    parsed = parse_with_lines(text)
    files = {FILE_NAME: text.encode()}
    package = folder / parsed.contract.package
    if not package.is_dir():
        there = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        name = parsed.contract.package
        parsed.problems.add("package", f"expected a folder {name} beside {FILE_NAME}, got none{meant(name, there)}")
        parsed.problems.raise_any()
    for file in (*_files(package, folder), *_data(parsed.contract, folder)):
        files[file.relative_to(folder).as_posix()] = file.read_bytes()
        if len(files) > MAX_FILES:
            raise TooLarge(f"The package {package} and the files of its sources are more than {MAX_FILES} files.")
    if (folder / LOCK_NAME).is_file():
        files[LOCK_NAME] = (folder / LOCK_NAME).read_bytes()
    files[ORIGIN_NAME] = json.dumps({"git_commit": _git_commit(folder)}).encode()
    content = pack(files, compressed=True)
    if len(content) > MAX_UPLOAD_BYTES:
        largest = max(files, key=lambda name: len(files[name]))
        raise TooLarge(
            f"The project packs to {len(content)} bytes; at most {MAX_UPLOAD_BYTES} are allowed. "
            f"Its largest file is {largest} ({len(files[largest])} bytes).",
            hint="Keep data outside the package; a loader reads it from where it is.",
        )
    return content


def parse_upload(content: bytes) -> Upload:
    """What ``read_project`` packed, checked as if it came from anywhere.

    Raises:
        Invalid: It is no such zip, or the contract in it has mistakes.
        TooLarge: It is larger than 50 MB, or unpacks to more than is allowed.
    """
    if len(content) > MAX_UPLOAD_BYTES:
        raise TooLarge(f"The upload has {len(content)} bytes; at most {MAX_UPLOAD_BYTES} are allowed.")
    files = unpack(content)
    if FILE_NAME not in files:
        raise Invalid(f"The upload holds no {FILE_NAME}.")
    text = _decoded(files.pop(FILE_NAME))
    origin = files.pop(ORIGIN_NAME, b"{}")
    parsed = parse_with_lines(text)
    package = f"{parsed.contract.package}/"
    data = _data_places(parsed.contract)
    for path in files:
        is_data = any(path.startswith(start) and path.endswith(end) for start, end in data)
        if not (path.startswith(package) or path == LOCK_NAME or is_data):
            expected = f"expected {FILE_NAME}, {LOCK_NAME}, files of sources and files under {package}"
            raise Invalid(f"The upload holds {path!r}; {expected}.")
    if not any(path.endswith(".py") for path in files):
        parsed.problems.add("package", f"expected Python files under {package}, got none")
        parsed.problems.raise_any()
    return Upload(text=text, parsed=parsed, files=files, git_commit=_commit(origin))


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Invalid(f"{FILE_NAME}:{line}: expected UTF-8 text, got the byte {content[error.start]:#04x}") from error


def _files(package: Path, folder: Path) -> Iterator[Path]:
    inside = folder.resolve()
    for root, folders, names in os.walk(package):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(_LEFT_OUT))
        for name in sorted(names):
            file = Path(root) / name
            is_wanted = not name.startswith(".") and not name.endswith(_LEFT_OUT) and file.is_file()
            if is_wanted and file.resolve().is_relative_to(inside):
                if not is_safe(file.relative_to(folder).as_posix()):
                    raise Invalid(f"The file name {name!r} in {root} has characters that not every system allows.")
                yield file


def _data(contract: Contract, folder: Path) -> Iterator[Path]:
    """The files that sources name inside the project; a problem of the contract when there is none."""
    for source in contract.sources:
        if source.files is None or source.files.startswith("/"):
            continue
        found = [file for file in sorted(folder.glob(source.files)) if file.is_file()]
        inside = [file for file in found if file.resolve().is_relative_to(folder.resolve())]
        if not inside:
            raise Invalid(
                f"sources.{source.name}.files: expected at least one file {source.files} in {folder}, got none",
                field=f"sources.{source.name}.files",
            )
        yield from inside


def _data_places(contract: Contract) -> list[tuple[str, str]]:
    """Where files of sources may be in a project: how their paths begin and end."""
    patterns = [source.files for source in contract.sources if source.files and not source.files.startswith("/")]
    return [(re.split(r"[*?\[]", each)[0].rpartition("/")[0], Path(each).suffix) for each in patterns]


def _git_commit(folder: Path) -> str | None:
    """The commit that the folder stands at; None when it is not in git, has no commit, or git is not installed."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return f"{commit}-dirty" if _git(folder, "status", "--porcelain", "--", ".") != "" else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit(origin: bytes) -> str | None:
    """The commit that the upload claims, if it has the form of one."""
    try:
        commit = json.loads(origin).get("git_commit")
    except (ValueError, AttributeError):
        return None
    is_commit = isinstance(commit, str) and len(commit) <= 70 and commit.removesuffix("-dirty").isalnum()
    return commit if is_commit else None
