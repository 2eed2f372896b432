"""The errors that a caller can act on, and how each is answered over HTTP and by the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class RelevoError(Exception):
    """Base of every error that Relevo raises on purpose.

    Args:
        message: What was expected, what was got, and what to do next.
        field: The input field that is wrong, in dotted form, when there is one.
        hint: One more sentence that says what to do.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint

    def as_json(self) -> dict[str, dict[str, str | None]]:
        """The one JSON shape of an error: ``{"error": {"code", "message", "field", "hint"}}``."""
        return {"error": {"code": self.code, "message": self.message, "field": self.field, "hint": self.hint}}


class Invalid(RelevoError):
    """The input is wrong; sending it again will not help."""

    code = "invalid"
    http_status = 400
    exit_status = 2


class NotAuthenticated(RelevoError):
    """No valid token or session came with the request."""

    code = "not_authenticated"
    http_status = 401
    exit_status = 3


class NotAllowed(RelevoError):
    """The principal is known, and lacks the permission."""

    code = "not_allowed"
    http_status = 403
    exit_status = 3


class NotFound(RelevoError):
    """The named thing does not exist."""

    code = "not_found"
    http_status = 404
    exit_status = 4


class Conflict(RelevoError):
    """The state has moved on, or the action contradicts what is recorded."""

    code = "conflict"
    http_status = 409
    exit_status = 5


class TooLarge(RelevoError):
    """The request is larger than the limit that the message names."""

    code = "too_large"
    http_status = 413
    exit_status = 2


class Overloaded(RelevoError):
    """A limit on queue length or rate was reached; try again after the time in ``Retry-After``.

    Args:
        message: Which limit.
        retry_after_seconds: That time.
    """

    code = "overloaded"
    http_status = 429
    exit_status = 6

    def __init__(self, message: str, *, retry_after_seconds: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(RelevoError):
    """A part that is needed is not there yet, or not now; try again later."""

    code = "unavailable"
    http_status = 503
    exit_status = 6


class JobFailed(RelevoError):
    """Code of the team's package failed in its child process; the message is its own."""

    code = "job_failed"
    http_status = 422
    exit_status = 7


class Corrupted(RelevoError):
    """Stored bytes do not match their digest or signature; they are never used."""

    code = "corrupted"
    http_status = 500
    exit_status = 8


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that ``name`` was most likely meant to be, or None when nothing is close.

    >>> nearest("roc_acu", ["roc_auc", "log_loss"])
    'roc_auc'
    """
    if len(name) > 200:  # nobody misspelt that, and comparing it would take long
        return None
    return next(iter(difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)), None)
