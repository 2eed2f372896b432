"""Whose a request is: bearer tokens to principals, as the state store last said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from relevo.errors import NotAuthenticated
from relevo.identity.model import Principal, Role
from relevo.identity.policy import token_digest, token_of
from relevo.serving.rates import Rates
from relevo.serving.shedding import NO_ENDPOINT, Shedding
from relevo.serving.watch import Tokens

#: Headers that are remembered until the tokens are read again; an application sends one.
_MAX_KNOWN = 4_096


class Callers:
    """The callers of one gateway worker. Belongs to the event loop.

    Args:
        read_tokens: Reads the accepted tokens anew.
        rates: What the tokens with a rate have left.
        shedding: Counts requests beyond it.
    """

    def __init__(self, read_tokens: Callable[[], Awaitable[Tokens]], rates: Rates, shedding: Shedding) -> None:
        self._read_tokens = read_tokens
        self._rates = rates
        self._shedding = shedding
        self._tokens: Tokens = {}
        self._known: dict[bytes, Principal] = {}

    def accept(self, tokens: Tokens) -> None:
        """Take over the accepted tokens as they were just read."""
        self._tokens = tokens
        self._known.clear()
        self._rates.keep(tokens)

    def find(self, authorization: bytes | None) -> Principal | None:
        """Whose the header's token is; None when it is not among the accepted.

        Raises:
            NotAuthenticated: The header holds no token.
            Overloaded: Its token has a rate, and has sent more.
        """
        known = self._known.get(authorization)  # type: ignore[arg-type]
        if known is not None:
            return known
        token = None if authorization is None else token_of(authorization.decode("latin-1"))
        if authorization is None or token is None:
            hint = "Send the header Authorization: Bearer TOKEN, or Basic with the token as the password."
            raise NotAuthenticated("A token is needed.", hint=hint)
        digest = token_digest(token)
        found = self._tokens.get(digest)
        if found is None or (found.expires_at is not None and found.expires_at <= datetime.now(UTC)):
            return None
        principal = found.principal
        if found.rate is not None and principal.role is not Role.LOAD_TEST:
            self._meter(digest, found.rate, principal)
        elif found.expires_at is None:  # one that expires, or is metered, is looked at each time
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[authorization] = principal
        return principal

    def _meter(self, digest: str, rate: str, principal: Principal) -> None:
        seconds = self._rates.take(digest, rate)
        if seconds > 0:
            message = f"The token of {principal.name} may send {rate} requests to the gateway, and has sent more."
            raise self._shedding.refusal(NO_ENDPOINT, "rate", message, seconds)

    async def find_after_reading(self, authorization: bytes | None) -> Principal:
        """Whose the header's token is, when it may have been made a moment ago.

        Raises:
            NotAuthenticated: It is not accepted.
            Overloaded: It has a rate, and has sent more.
        """
        self.accept(await self._read_tokens())
        principal = self.find(authorization)
        if principal is None:
            raise NotAuthenticated("The token is unknown, revoked or expired.", hint="`relevo token create` makes one.")
        return principal
