"""Errors as workflows record them: class by code, message, field and hint; nothing that must be unpickled."""

from __future__ import annotations

from collections.abc import Iterator

from relevo.errors import Conflict, RelevoError


class Cancelled(Conflict):
    """A person asked this workflow to stop. It is raised at a wait, once; what undoes the work may still run steps."""

    code = "cancelled"


class StepFailed(RelevoError):
    """A step raised an error that is not one of ours; the message names its type."""

    code = "step_failed"


def error_to_json(error: Exception) -> dict[str, str | None]:
    """``code``, ``message``, ``field`` and ``hint`` of an error; one that is not ours becomes ``step_failed``."""
    if isinstance(error, RelevoError):
        return {**error.as_json()["error"], "code": error.code}
    return {"code": StepFailed.code, "message": f"{type(error).__name__}: {error}", "field": None, "hint": None}


def error_from_json(data: dict[str, str | None]) -> RelevoError:
    """The error again, of the class that has its code."""
    kinds = {kind.code: kind for kind in _subclasses(RelevoError)}
    kind = kinds.get(data["code"] or "", StepFailed)
    return kind(data["message"] or "", field=data.get("field"), hint=data.get("hint"))


def _subclasses(kind: type[RelevoError]) -> Iterator[type[RelevoError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
