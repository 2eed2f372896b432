"""Process logs under ``home/logs``: one readable line an event, rotated, with secrets taken out."""

from __future__ import annotations

import logging
import re
import sys
import time
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every job imports `redact`, and need not wait for pydantic
    from relevo.platform.settings import Settings

_MAX_BYTES = 10 * 1024 * 1024
_KEPT_FILES = 5
_SECRETS = (
    (re.compile(r"rlv_[A-Za-z0-9_-]{8,}"), "rlv_***"),
    (re.compile(r"(?<=://)([^\s/:@]*):[^\s/@]+@"), r"\1:***@"),
)


def redact(text: str) -> str:
    """``text`` without our tokens and without the passwords of URLs.

    >>> redact("postgresql://relevo:hunter2@db/state refused rlv_abcdefghijklmnop")
    'postgresql://relevo:***@db/state refused rlv_***'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class RedactingFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO relevo.app message``, tracebacks included, secrets taken out."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of the record, redacted last so that nothing slips past."""
        return redact(super().format(record))


def configure_logging(settings: Settings, process_name: str, *, to_stderr: bool = False) -> None:
    """Send everything that this process logs to ``home/logs/<process_name>.log``.

    Replaces the handlers of the root logger. Call it once, at the start of a process; two processes need two names.

    Args:
        settings: Home folder and level.
        process_name: Such as ``control`` or ``gateway-1``.
        to_stderr: Also write to standard error.
    """
    handlers: list[logging.Handler] = [
        RotatingFileHandler(
            settings.folder("logs") / f"{process_name}.log",
            maxBytes=_MAX_BYTES,
            backupCount=_KEPT_FILES,
            encoding="utf-8",
        )
    ]
    if to_stderr:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(RedactingFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(capture=True)
