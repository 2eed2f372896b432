"""The tables of principals, tokens and sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relevo.identity.model import Account, Role, Token
from relevo.platform.state import Transaction, UtcDateTime, metadata

principals = sa.Table(
    "principals",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("disabled_at", UtcDateTime),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("principal", sa.ForeignKey(principals.c.name), nullable=False, index=True),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("note", sa.String(256), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("rate", sa.String(32)),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("token", sa.ForeignKey(tokens.c.id), nullable=False, index=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token with its digest and whether its principal is disabled."""

    token: Token
    digest: str
    is_disabled: bool


def insert_account(tx: Transaction, account: Account) -> None:
    """Keep a new principal."""
    tx.execute(principals.insert().values({name: getattr(account, name) for name in Account.__slots__}))


def ensure_account(tx: Transaction, account: Account) -> None:
    """Keep the principal unless there is one of its name; safe when two do it at the same time."""
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    columns = {name: getattr(account, name) for name in Account.__slots__}
    tx.execute(insert(principals).values(columns).on_conflict_do_nothing())


def account(tx: Transaction, name: str) -> Account | None:
    """The principal of that name, or None."""
    row = tx.execute(principals.select().where(principals.c.name == name)).one_or_none()
    return None if row is None else _account(row)


def accounts(tx: Transaction) -> list[Account]:
    """Every principal, by name."""
    return [_account(row) for row in tx.execute(principals.select().order_by(principals.c.name))]


def disable_account(tx: Transaction, name: str, at: datetime) -> None:
    """Mark the principal as disabled since ``at``."""
    tx.execute(principals.update().where(principals.c.name == name).values(disabled_at=at))


def insert_token(tx: Transaction, token: Token, digest: str) -> None:
    """Keep a new token's facts under its digest."""
    tx.execute(tokens.insert().values(digest=digest, **{name: getattr(token, name) for name in Token.__slots__}))


def token_by_id(tx: Transaction, token_id: str) -> StoredToken | None:
    """The token of that id, or None."""
    return _one(tx, tokens.c.id == token_id)


def token_by_digest(tx: Transaction, digest: str) -> StoredToken | None:
    """The token of that digest, or None."""
    return _one(tx, tokens.c.digest == digest)


def all_tokens(tx: Transaction) -> list[StoredToken]:
    """Every token, the oldest first."""
    return [_stored(row) for row in tx.execute(_tokens().order_by(tokens.c.created_at, tokens.c.id))]


def revoke_token(tx: Transaction, token_id: str, at: datetime) -> None:
    """Mark the token as revoked since ``at``."""
    tx.execute(tokens.update().where(tokens.c.id == token_id).values(revoked_at=at))


def touch_token(tx: Transaction, token_id: str, at: datetime) -> None:
    """Note when the token was used."""
    tx.execute(tokens.update().where(tokens.c.id == token_id).values(last_used_at=at))


def insert_session(tx: Transaction, *, digest: str, token_id: str, created_at: datetime, expires_at: datetime) -> None:
    """Open a session, and forget those that have expired."""
    tx.execute(sessions.delete().where(sessions.c.expires_at <= created_at))
    tx.execute(sessions.insert().values(digest=digest, token=token_id, created_at=created_at, expires_at=expires_at))


def session(tx: Transaction, digest: str) -> tuple[StoredToken, datetime] | None:
    """The token behind a session and when the session expires, or None."""
    query = _tokens().join(sessions, sessions.c.token == tokens.c.id).where(sessions.c.digest == digest)
    row = tx.execute(query.add_columns(sessions.c.expires_at.label("session_expires_at"))).one_or_none()
    return None if row is None else (_stored(row), row.session_expires_at)


def delete_session(tx: Transaction, digest: str) -> None:
    """Close a session; nothing happens when there is none."""
    tx.execute(sessions.delete().where(sessions.c.digest == digest))


def _tokens() -> sa.Select[Any]:
    joined = tokens.join(principals, principals.c.name == tokens.c.principal)
    return sa.select(tokens, principals.c.disabled_at).select_from(joined)


def _one(tx: Transaction, condition: sa.ColumnElement[bool]) -> StoredToken | None:
    row = tx.execute(_tokens().where(condition)).one_or_none()
    return None if row is None else _stored(row)


def _stored(row: sa.Row[Any]) -> StoredToken:
    fields = {name: getattr(row, name) for name in Token.__slots__}
    token = Token(**fields | {"role": Role(row.role)})
    return StoredToken(token, row.digest, is_disabled=row.disabled_at is not None)


def _account(row: sa.Row[Any]) -> Account:
    return Account(**dict(row._mapping) | {"role": Role(row.role)})
