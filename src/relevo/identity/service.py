"""Who is asking, and what may they do: principals, tokens and console sessions."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from relevo.errors import Conflict, Invalid, NotAuthenticated, NotFound
from relevo.identity import policy, store
from relevo.identity.model import RELEVO, Accepted, Account, Principal, Role, Token
from relevo.ledger.service import Ledger
from relevo.platform.clock import utc_now
from relevo.platform.state import State, Transaction

#: How long a console session lasts at most, in wall time.
SESSION_LIFETIME = timedelta(hours=12)
#: ``last_used_at`` is this coarse: a write on every request would serialise all of them.
LAST_USED_STEP = timedelta(minutes=10)


class Identity:
    """Principals, their tokens and sessions. Thread-safe. Every change is in the ledger.

    A token is known by its SHA-256 alone; it is shown once, when it is made.

    Args:
        state: The state store.
        wall: Gives wall time; a test may give its own.
    """

    def __init__(self, state: State, wall: Callable[[], datetime] = utc_now) -> None:
        self._state = state
        self._ledger = Ledger(state)
        self._wall = wall

    def bootstrap(self, tx: Transaction) -> str | None:
        """Make the principal ``admin`` and its first token on an empty installation; None when it is not empty."""
        if any(account.name != RELEVO.name for account in store.accounts(tx)):
            return None
        self.create_principal(tx, "admin", Role.ADMIN)
        return self.create_token(tx, "admin", Role.ADMIN, note="first token")

    def create_principal(self, tx: Transaction, name: str, role: Role, *, actor: Principal = RELEVO) -> Account:
        """Make a principal. Names are unique for ever.

        Raises:
            Invalid: When the name is not plain, or the role is Relevo's own.
            Conflict: When the name is taken, also by a disabled principal.
        """
        policy.check_name(name)
        if role in {Role.SYSTEM, Role.LOAD_TEST} or name == RELEVO.name:
            raise Invalid(f"The name {RELEVO.name} and the role {Role.SYSTEM} are Relevo's own.", field="name")
        if store.account(tx, name) is not None:
            raise Conflict(f"There is a principal {name} already; names are never reused.", field="name")
        account = Account(name, role, created_at=self._wall(), created_by=actor.name, disabled_at=None)
        store.insert_account(tx, account)
        facts = {"role": role.value}
        self._ledger.append(tx, actor=actor, action="principal created", subject=f"principal/{name}", facts=facts)
        return account

    def disable_principal(self, tx: Transaction, name: str, *, actor: Principal) -> None:
        """Refuse every token and session of the principal from now on. Its name stays taken.

        Raises:
            NotFound: When there is no such principal.
            Conflict: When nobody could administer afterwards.
        """
        if self._account(tx, name).disabled_at is not None:
            return
        self._require_other_administrator(tx, lambda token: token.principal != name)
        store.disable_account(tx, name, self._wall())
        self._ledger.append(tx, actor=actor, action="principal disabled", subject=f"principal/{name}")

    def principals(self) -> list[Account]:
        """Every principal, by name, disabled ones too."""
        with self._state.read() as tx:
            return store.accounts(tx)

    def create_token(
        self,
        tx: Transaction,
        principal_name: str,
        role: Role,
        *,
        note: str,
        expires_at: datetime | None = None,
        rate: str | None = None,
        actor: Principal = RELEVO,
    ) -> str:
        """Make a token and return it; it cannot be read again. ``role`` may narrow the principal's, not widen it.

        ``rate`` bounds its requests to the gateway, such as ``100/s`` or ``30/min``. For ``relevo`` itself only tokens
        of runs and load tests can be made.

        Raises:
            NotFound: When there is no such principal, or it is disabled.
            NotAllowed: When the role holds what the principal's lacks.
            Invalid: When the token would have expired already, the note is not one short line, or the rate is none.
        """
        now = self._wall()
        if principal_name == RELEVO.name:
            store.ensure_account(tx, Account(RELEVO.name, RELEVO.role, now, RELEVO.name, disabled_at=None))
        account = self._account(tx, principal_name)
        if account.disabled_at is not None:
            raise NotFound(f"The principal {principal_name} is disabled.", field="principal")
        policy.check_token_role(account, role, actor)
        if expires_at is not None:
            policy.check_expiry(expires_at, now)
        policy.check_note(note)
        rate = None if rate is None else policy.plain_rate(rate)
        secret = policy.new_token()
        digest = policy.token_digest(secret)
        token = Token(digest[:12], principal_name, role, note, now, actor.name, expires_at, None, None, rate)
        store.insert_token(tx, token, digest)
        facts = {"role": role.value, "note": note, "expires_at": expires_at, "rate": rate}
        subject = f"token/{principal_name}/{token.id}"
        self._ledger.append(tx, actor=actor, action="token created", subject=subject, facts=facts)
        return secret

    def revoke(self, tx: Transaction, token_id: str, *, actor: Principal = RELEVO, reason: str = "") -> None:
        """Refuse the token, and sessions opened with it, from now on. Repeating it changes nothing.

        Raises:
            NotFound: When there is no such token.
            Conflict: When it is the last one that may administer.
        """
        stored = store.token_by_id(tx, token_id) if token_id.isalnum() else None
        if stored is None:
            raise NotFound(f"There is no token {token_id[:32]!r}; `relevo token list` names them.")
        if stored.token.revoked_at is not None:
            return
        if stored.token.role is Role.ADMIN and stored.token.is_active(self._wall()):
            self._require_other_administrator(tx, lambda token: token.id != token_id)
        store.revoke_token(tx, token_id, self._wall())
        subject = f"token/{stored.token.principal}/{token_id}"
        self._ledger.append(tx, actor=actor, action="token revoked", subject=subject, reason=reason)

    def tokens(self) -> list[Token]:
        """Every token's facts, the oldest first, revoked ones too."""
        with self._state.read() as tx:
            return [stored.token for stored in store.all_tokens(tx)]

    def token_id(self, token: str) -> str:
        """The id under which a token is listed and revoked."""
        return policy.token_digest(token)[:12]

    def authenticate(self, token: str) -> Principal:
        """Whose token this is. Opens transactions of its own: call it outside of any.

        Raises:
            NotAuthenticated: When the token is unknown, revoked or expired, or its principal disabled.
        """
        with self._state.read() as tx:
            stored = store.token_by_digest(tx, policy.token_digest(token))
        if stored is None:
            raise NotAuthenticated("The token is not known here.", hint="`relevo token create` makes one.")
        principal = self._active(stored)
        self._note_use(stored.token)
        return principal

    def active_tokens(self) -> dict[str, Accepted]:
        """SHA-256 of every token that is accepted now -> what the gateway needs of it."""
        now = self._wall()
        with self._state.read() as tx:
            stored = store.all_tokens(tx)
        return {
            each.digest: Accepted(
                Principal(each.token.principal, each.token.role), each.token.expires_at, each.token.rate
            )
            for each in stored
            if each.token.is_active(now) and not each.is_disabled
        }

    def open_session(self, token: str) -> str:
        """Open a console session for the token's principal and return the value of its cookie.

        Raises:
            NotAuthenticated: As ``authenticate``.
        """
        self.authenticate(token)
        now, cookie = self._wall(), secrets.token_urlsafe(32)
        with self._state.transaction() as tx:
            store.insert_session(
                tx,
                digest=policy.token_digest(cookie),
                token_id=self.token_id(token),
                created_at=now,
                expires_at=now + SESSION_LIFETIME,
            )
        return cookie

    def session(self, cookie: str) -> tuple[Principal, str]:
        """Whose session the cookie is, and the CSRF token that its forms carry.

        Raises:
            NotAuthenticated: When the session is unknown or over, or its token no longer accepted.
        """
        with self._state.read() as tx:
            found = store.session(tx, policy.token_digest(cookie))
        if found is None or found[1] <= self._wall():
            raise NotAuthenticated("The session is over; sign in again.")
        return self._active(found[0]), policy.csrf_token(cookie)

    def close_session(self, cookie: str) -> None:
        """End the session; nothing happens when there is none."""
        with self._state.transaction() as tx:
            store.delete_session(tx, policy.token_digest(cookie))

    def _active(self, stored: store.StoredToken) -> Principal:
        token = stored.token
        if stored.is_disabled:
            raise NotAuthenticated(f"The principal {token.principal} is disabled.")
        if token.revoked_at is not None:
            raise NotAuthenticated(f"The token {token.id} was revoked at {token.revoked_at.isoformat()}.")
        if token.expires_at is not None and not token.is_active(self._wall()):
            raise NotAuthenticated(f"The token {token.id} expired at {token.expires_at.isoformat()}.")
        return Principal(token.principal, token.role)

    def _note_use(self, token: Token) -> None:
        now = self._wall()
        if token.last_used_at is None or now - token.last_used_at >= LAST_USED_STEP:
            with self._state.transaction() as tx:
                store.touch_token(tx, token.id, now)

    def _account(self, tx: Transaction, name: str) -> Account:
        account = store.account(tx, name) if name.isprintable() else None
        if account is None:
            raise NotFound(f"There is no principal {name[:140]!r}; create it first.", field="principal")
        return account

    def _require_other_administrator(self, tx: Transaction, is_kept: Callable[[Token], bool]) -> None:
        now = self._wall()
        for stored in store.all_tokens(tx):
            token = stored.token
            if token.role is Role.ADMIN and token.is_active(now) and not stored.is_disabled and is_kept(token):
                return
        raise Conflict("Nobody could administer afterwards: make another admin token first.")
