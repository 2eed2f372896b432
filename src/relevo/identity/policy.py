"""Pure decisions: what a token looks like, where a request carries it, what a token may be given."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from datetime import datetime

from relevo.errors import Invalid, NotAllowed
from relevo.identity.model import PERMISSIONS, RELEVO, Account, Principal, Role

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
_RATE = re.compile(r"\s*(\d{1,9})\s*/\s*(s|second|m|min|minute|h|hour)\s*", re.ASCII)
_SPELT = {"s": "s", "second": "s", "m": "min", "min": "min", "minute": "min", "h": "h", "hour": "h"}
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def new_token() -> str:
    """A fresh token: ``rlv_`` and 32 random bytes in base64url."""
    return f"rlv_{secrets.token_urlsafe(32)}"


def token_digest(token: str) -> str:
    """What is kept of a token or of a session's cookie: its SHA-256 in hex. 32 random bytes need no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(cookie: str) -> str:
    """The token that a form of this session carries. Derived, so that only who has the cookie can know it."""
    return hmac.new(cookie.encode(), b"relevo csrf", hashlib.sha256).hexdigest()


def token_of(authorization: str | None) -> str | None:
    """The token in an ``Authorization`` header: ``Bearer TOKEN``, or ``Basic`` with the token as the password.

    >>> token_of("Bearer rlv_abc"), token_of("Basic OnJsdl9hYmM="), token_of("Digest x")
    ('rlv_abc', 'rlv_abc', None)
    """
    scheme, _, value = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except ValueError:  # no base64, or no text
        return None
    return text.partition(":")[2] or None


def check_name(name: str) -> None:
    """Refuse a principal's name that is not plain lower-case text.

    Raises:
        Invalid: With what a name may hold.
    """
    if not _NAME.fullmatch(name):
        raise Invalid(
            "a principal's name is 1 to 128 of a-z, 0-9, . _ @ + - and begins with a letter or digit, "
            f"got {name[:140]!r}",
            field="name",
        )


def check_note(note: str) -> None:
    """Refuse a token's note that is not one line of at most 256 characters.

    Raises:
        Invalid: With what a note may be.
    """
    if len(note) > 256 or not note.isprintable():
        raise Invalid(f"a note is one line of at most 256 characters, got {note[:80]!r}", field="note")


def check_expiry(expires_at: datetime, now: datetime) -> None:
    """Refuse an expiry that is naive, past, or so late that it has no UTC time.

    Raises:
        Invalid: With what was got.
    """
    if expires_at.tzinfo is None:
        raise Invalid(f"expires_at needs an offset such as +00:00, got {expires_at.isoformat()}", field="expires_at")
    if expires_at <= now or expires_at.year >= 9999:
        raise Invalid(
            f"expires_at is a time to come before the year 9999, got {expires_at.isoformat()}", field="expires_at"
        )


def plain_rate(rate: str) -> str:
    """A rate in its one spelling.

    Raises:
        Invalid: With what a rate may be.

    >>> plain_rate("100/s"), plain_rate(" 30 / minute")
    ('100/s', '30/min')
    """
    found = _RATE.fullmatch(rate)
    if found is None or int(found[1]) == 0:
        raise Invalid(
            f"a rate is a whole number of requests by s, min or h, such as 100/s; got {rate[:40]!r}", field="rate"
        )
    return f"{int(found[1])}/{_SPELT[found[2]]}"


def requests_and_seconds(rate: str) -> tuple[int, int]:
    """What a plain rate says.

    >>> requests_and_seconds("30/min")
    (30, 60)
    """
    requests, _, span = rate.partition("/")
    return int(requests), _SECONDS[span]


def check_token_role(account: Account, role: Role, actor: Principal) -> None:
    """Refuse a token that could do what its principal may not.

    Nobody but Relevo itself makes one for a load test: its requests are answered without being logged.

    Raises:
        NotAllowed: With what the principal's role lacks.
    """
    lacking = PERMISSIONS[role] - PERMISSIONS[account.role]
    is_reserved = role is Role.SYSTEM or (role is Role.LOAD_TEST and {account.name, actor.name} != {RELEVO.name})
    if is_reserved or lacking:
        missing = ", ".join(sorted(lacking)) or "it is Relevo's own"
        raise NotAllowed(
            f"A token of {account.name} ({account.role}) cannot have the role {role}: {missing}.", field="role"
        )
