"""Principals, roles and permissions."""

from __future__ import annotations

from dataclasses import dataclass
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
    """A named set of permissions."""

    ADMIN = "admin"
    ENGINEER = "engineer"
    REVIEWER = "reviewer"
    VIEWER = "viewer"
    APPLICATION = "application"
    RUN = "run"


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
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: a person or a program."""

    name: str
    role: Role

    def may(self, permission: Permission) -> bool:
        """Whether the role holds the permission."""
        return permission in PERMISSIONS[self.role]
