"""The child's side of a job: serve functions by name, report progress, and say where the team's code failed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from relevo.errors import NotFound, RelevoError, nearest
from relevo.platform.encoding import to_json
from relevo.platform.logging import redact
from relevo.platform.processes import die_with_parent

JSON = dict[str, Any]

#: The variable in which a job tells its child the two pipes, the parent's process id and the team's folder.
JOB_VARIABLE = "RELEVO_JOB"
_MAX_MESSAGE_CHARACTERS = 4000

_answers: int | None = None  # set while this process serves a job
_write_lock = threading.Lock()


def serve(functions: Mapping[str, Callable[..., JSON]]) -> None:
    """Answer the parent's calls with these functions until it closes the job. Does not return an error: it sends it.

    Args:
        functions: By the name that the parent calls. Each takes plain JSON keywords and returns what converts to JSON.
    """
    global _answers
    work: JSON = json.loads(os.environ.pop(JOB_VARIABLE))
    die_with_parent(work["parent"], signal.SIGKILL)
    for descriptor in (work["calls"], work["answers"]):
        os.set_inheritable(descriptor, False)
    _answers = work["answers"]
    package = Path(work["package"]) if work["package"] else None
    with os.fdopen(work["calls"], "rb") as calls:
        for line in calls:
            _write(_answer(functions, json.loads(line), package))


def progress(text: str, fraction: float | None = None) -> None:
    """Tell whoever called how far the work is; ``fraction`` from 0 to 1 when known. Nothing happens outside a job."""
    if _answers is not None:
        _write(json.dumps({"progress": text, "fraction": None if fraction is None else float(fraction)}))


def _answer(functions: Mapping[str, Callable[..., JSON]], request: JSON, package: Path | None) -> str:
    try:
        name = request["call"]
        if name not in functions:
            raise NotFound(f"This job serves {', '.join(functions)}; not {name}.", hint=nearest(name, functions))
        return json.dumps({"answer": to_json(functions[name](**request["arguments"]))})
    except BaseException as error:  # the outer edge of the team's code: sys.exit() in it is a failure like any other
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
        return json.dumps({"error": _description(error, package)})


def _description(error: BaseException, package: Path | None) -> JSON:
    is_ours = isinstance(error, RelevoError)
    return {
        "type": None if is_ours else type(error).__name__,
        "message": _message(error),
        "field": getattr(error, "field", None) if is_ours else None,
        "hint": getattr(error, "hint", None) if is_ours else None,
        "place": None if package is None else next(_places(error, package), None),
    }


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:  # the team's __str__ may fail as well
        text = f"its message could not be read: {type(second).__name__}"
    return text[:_MAX_MESSAGE_CHARACTERS]


def _places(error: BaseException, package: Path) -> Iterator[str]:
    """``file.py:line`` of the last frame in the team's folder, of the error and then of what it came from."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, SyntaxError) and each.filename:
            yield from _inside(package, each.filename, each.lineno)
        for frame in reversed(traceback.extract_tb(each.__traceback__)):
            yield from _inside(package, frame.filename, frame.lineno)
        each = each.__cause__ or each.__context__


def _inside(package: Path, filename: str, line: int | None) -> Iterator[str]:
    path = Path(filename)
    if path.is_relative_to(package) and "site-packages" not in path.parts:
        yield f"{path.relative_to(package)}:{line}"


def _write(message: str) -> None:
    data = memoryview(message.encode() + b"\n")
    with _write_lock:
        while data and _answers is not None:
            data = data[os.write(_answers, data) :]
