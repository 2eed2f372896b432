"""The tables of endpoints, routes and placements, and their only SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relevo.platform.encoding import parse, to_json
from relevo.platform.state import Transaction, UtcDateTime, metadata
from relevo.serving.model import Arm, Endpoint, EndpointSettings, Placement, Route, ShadowArm

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

routes = sa.Table(
    "routes",
    metadata,
    sa.Column("endpoint", sa.Text, sa.ForeignKey("endpoints.name"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("arms", sa.JSON, nullable=False),
    sa.Column("shadow", sa.JSON(none_as_null=True)),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("effective_event_at", UtcDateTime, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
    sa.Column("workflow_id", sa.Text),
    sa.Column("step", sa.Text),
    sa.UniqueConstraint("workflow_id", "step"),
)

placements = sa.Table(
    "placements",
    metadata,
    sa.Column("endpoint", sa.Text, sa.ForeignKey("endpoints.name"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("bundle", sa.Text, nullable=False),
    sa.Column("placed_at", UtcDateTime, nullable=False),
)

serving_changes = sa.Table(
    "serving_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)


def changes(tx: Transaction) -> int:
    """A number that every change of an endpoint, a route or a placement raises."""
    return tx.execute(sa.select(serving_changes.c.number)).scalar_one_or_none() or 0


def _count_change(tx: Transaction) -> None:
    raised = tx.execute(sa.update(serving_changes).values(number=serving_changes.c.number + 1))
    if raised.rowcount == 0:
        tx.execute(sa.insert(serving_changes).values(id=1, number=1))


def find_endpoint(tx: Transaction, name: str) -> Endpoint | None:
    """The endpoint of that name."""
    row = tx.execute(sa.select(endpoints).where(endpoints.c.name == name)).one_or_none()
    return None if row is None else _endpoint(row)


def all_endpoints(tx: Transaction) -> list[Endpoint]:
    """Every endpoint, by name."""
    rows = tx.execute(sa.select(endpoints).order_by(endpoints.c.name))
    return [_endpoint(row) for row in rows]


def add_endpoint(tx: Transaction, name: str, settings: EndpointSettings, created_at: datetime) -> Endpoint:
    """A new endpoint with the next number."""
    number = (tx.execute(sa.select(sa.func.max(endpoints.c.number))).scalar() or 0) + 1
    tx.execute(sa.insert(endpoints).values(name=name, number=number, settings=to_json(settings), created_at=created_at))
    _count_change(tx)
    return Endpoint(name, number, settings)


def set_settings(tx: Transaction, name: str, settings: EndpointSettings) -> None:
    """Change how the gateway treats the endpoint's requests."""
    tx.execute(sa.update(endpoints).where(endpoints.c.name == name).values(settings=to_json(settings)))
    _count_change(tx)


def lock_endpoint(tx: Transaction, name: str) -> None:
    """Hold off other writers of the endpoint's routes until the transaction ends (SQLite holds off all anyway)."""
    tx.execute(sa.select(endpoints.c.name).where(endpoints.c.name == name).with_for_update())


def add_route(tx: Transaction, route: Route, once: tuple[str, str] | None) -> None:
    """Append a revision."""
    workflow_id, step = once or (None, None)
    tx.execute(
        sa.insert(routes).values(
            endpoint=route.endpoint,
            revision=route.revision,
            arms=[{"version": arm.version, "percent": arm.percent} for arm in route.arms],
            shadow=None if route.shadow is None else to_json(route.shadow),
            recorded_at=route.recorded_at,
            effective_event_at=route.effective_event_at,
            reason=route.reason,
            set_by=route.set_by,
            workflow_id=workflow_id,
            step=step,
        )
    )
    _count_change(tx)


def find_route_by_step(tx: Transaction, once: tuple[str, str]) -> Route | None:
    """The revision that this step of this workflow recorded."""
    query = sa.select(routes).where(routes.c.workflow_id == once[0], routes.c.step == once[1])
    row = tx.execute(query).one_or_none()
    return None if row is None else _route(row)


def last_route(tx: Transaction, endpoint: str) -> Route | None:
    """The revision in force."""
    query = sa.select(routes).where(routes.c.endpoint == endpoint).order_by(routes.c.revision.desc()).limit(1)
    row = tx.execute(query).one_or_none()
    return None if row is None else _route(row)


def route_at(tx: Transaction, endpoint: str, event_at: datetime) -> Route | None:
    """The last revision that took effect at or before the event time."""
    query = (
        sa.select(routes)
        .where(routes.c.endpoint == endpoint, routes.c.effective_event_at <= event_at)
        .order_by(routes.c.effective_event_at.desc(), routes.c.revision.desc())
        .limit(1)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else _route(row)


def all_routes(tx: Transaction, endpoint: str) -> list[Route]:
    """Every revision, the oldest first."""
    rows = tx.execute(sa.select(routes).where(routes.c.endpoint == endpoint).order_by(routes.c.revision))
    return [_route(row) for row in rows]


def current_routes(tx: Transaction) -> list[Route]:
    """The revision in force of every endpoint that has one."""
    newest = sa.select(routes.c.endpoint, sa.func.max(routes.c.revision).label("revision")).group_by(routes.c.endpoint)
    last = newest.subquery()
    query = sa.select(routes).join(
        last, sa.and_(routes.c.endpoint == last.c.endpoint, routes.c.revision == last.c.revision)
    )
    return [_route(row) for row in tx.execute(query)]


def add_placement(tx: Transaction, placement: Placement) -> None:
    """Record that the version is to be kept loaded."""
    tx.execute(
        sa.insert(placements).values(
            endpoint=placement.endpoint,
            version=placement.version,
            bundle=placement.bundle,
            placed_at=placement.placed_at,
        )
    )
    _count_change(tx)


def place_again(tx: Transaction, placement: Placement) -> None:
    """Record that the version is asked to be loaded once more."""
    tx.execute(
        sa.update(placements)
        .where(placements.c.endpoint == placement.endpoint, placements.c.version == placement.version)
        .values(placed_at=placement.placed_at)
    )
    _count_change(tx)


def remove_placement(tx: Transaction, endpoint: str, version: int) -> None:
    """Forget the placement; nothing happens when there is none."""
    tx.execute(sa.delete(placements).where(placements.c.endpoint == endpoint, placements.c.version == version))
    _count_change(tx)


def all_placements(tx: Transaction, endpoint: str | None = None) -> list[Placement]:
    """Placements of one endpoint or of all, by endpoint and version."""
    query = sa.select(placements).order_by(placements.c.endpoint, placements.c.version)
    if endpoint is not None:
        query = query.where(placements.c.endpoint == endpoint)
    return [Placement(row.endpoint, row.version, row.bundle, row.placed_at) for row in tx.execute(query)]


def data_version(tx: Transaction) -> int | None:
    """A number that changes on this connection when another one commits; None where the database has none."""
    if tx.dialect.name != "sqlite":
        return None
    return int(tx.exec_driver_sql("PRAGMA data_version").scalar_one())


def _endpoint(row: sa.Row[Any]) -> Endpoint:
    return Endpoint(row.name, row.number, parse(EndpointSettings, row.settings))


def _route(row: sa.Row[Any]) -> Route:
    arms: Sequence[dict[str, Any]] = row.arms
    return Route(
        endpoint=row.endpoint,
        revision=row.revision,
        arms=tuple(Arm(int(arm["version"]), float(arm["percent"])) for arm in arms),
        recorded_at=row.recorded_at,
        effective_event_at=row.effective_event_at,
        reason=row.reason,
        set_by=row.set_by,
        shadow=None if row.shadow is None else parse(ShadowArm, row.shadow),
    )
