"""Principals, roles and permissions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Permission(StrEnum):
    """What a route may ask for."""

    READ = "read"
    PREDICT = "predict"
    LABEL = "label"
    ADDRESS_VERSION = "address_version"
    APPLY = "apply"
    APPROVE = "approve"
    OPERATE = "operate"
    TRACK = "track"
    ADMINISTER = "administer"


class Role(StrEnum):
    """A named set of permissions.

    Relevo's own are ``RUN`` for a job's token, ``LOAD_TEST`` for a load test's, whose requests the gateway neither logs
    nor counts, and ``SYSTEM`` for what workflows do by themselves.
    """

    ADMIN = "admin"
    ENGINEER = "engineer"
    REVIEWER = "reviewer"
    VIEWER = "viewer"
    APPLICATION = "application"
    RUN = "run"
    LOAD_TEST = "load_test"
    SYSTEM = "system"


PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: frozenset(Permission),
    Role.ENGINEER: frozenset(
        {
            Permission.READ,
            Permission.PREDICT,
            Permission.LABEL,
            Permission.ADDRESS_VERSION,
            Permission.APPLY,
            Permission.OPERATE,
            Permission.TRACK,
        }
    ),
    Role.REVIEWER: frozenset({Permission.READ, Permission.APPROVE}),
    Role.VIEWER: frozenset({Permission.READ}),
    Role.APPLICATION: frozenset({Permission.PREDICT, Permission.LABEL}),
    Role.RUN: frozenset({Permission.TRACK}),
    Role.LOAD_TEST: frozenset({Permission.PREDICT, Permission.ADDRESS_VERSION}),
    # No token holds it; it is only narrowed to RUN and LOAD_TEST.
    Role.SYSTEM: frozenset({Permission.TRACK, Permission.PREDICT, Permission.ADDRESS_VERSION}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: a person or a program."""

    name: str
    role: Role

    def may(self, permission: Permission) -> bool:
        """Whether the role holds the permission."""
        return permission in PERMISSIONS[self.role]


#: The actor of what no person asked for: a roll-back by the canary's judge, a retraining by a rule.
RELEVO = Principal("relevo", Role.SYSTEM)


@dataclass(frozen=True, slots=True)
class Account:
    """A principal as it is kept. Names are never reused: a disabled one stays."""

    name: str
    role: Role
    created_at: datetime
    created_by: str
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the token itself is not kept. ``id`` names it in lists and when it is revoked.

    ``rate`` bounds its requests to the gateway, such as ``100/s``; None: nothing does.
    """

    id: str
    principal: str
    role: Role
    note: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    rate: str | None = None

    def is_active(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired at wall time ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the gateway needs of a token that is accepted."""

    principal: Principal
    expires_at: datetime | None
    rate: str | None = None
