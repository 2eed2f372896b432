"""The tables of windows and alerts, and their only SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relevo.monitoring.burn import Counted
from relevo.monitoring.model import Alert, AlertKind, Finding, Parity, Severity, Window, WindowState
from relevo.platform.encoding import parse, to_json
from relevo.platform.state import Transaction, UtcDateTime, metadata
from relevo.serving.model import Counters

windows = sa.Table(
    "windows",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("end_at", UtcDateTime, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("endpoint", sa.String(128), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("raised_at", UtcDateTime, nullable=False),
    sa.Column("event_at", UtcDateTime, nullable=False),
    sa.Column("resolved_at", UtcDateTime),
)

#: One open alert of a kind, also when two processes raise it at once.
sa.Index(
    "ix_alerts_open",
    alerts.c.endpoint,
    alerts.c.kind,
    unique=True,
    sqlite_where=alerts.c.resolved_at.is_(None),
    postgresql_where=alerts.c.resolved_at.is_(None),
)


parity_reports = sa.Table(
    "parity_reports",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Index("ix_parity_reports_model", "model", "id"),
)
#: Proofs of a model that are kept.
KEPT_REPORTS = 100


#: What callers of an endpoint got, in wall time: once by the minute, once by the hour.
service_level_counts = sa.Table(
    "service_level_counts",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("seconds", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("begins_at", UtcDateTime, primary_key=True),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("slow", sa.Integer, nullable=False),
    sa.Index("ix_service_level_counts_begins", "seconds", "begins_at"),
)
#: The gateway's counters up to which those counts go.
service_level_marks = sa.Table(
    "service_level_marks",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("counters", sa.JSON, nullable=False),
)


def add_counts(tx: Transaction, endpoint: str, seconds: int, begins_at: datetime, counted: Counted) -> None:
    """Add to what was counted in the span of so many seconds that begins then."""
    table = service_level_counts
    place = {"endpoint": endpoint, "seconds": seconds, "begins_at": begins_at}
    is_there = sa.and_(*(table.c[name] == value for name, value in place.items()))
    more = {name: table.c[name] + value for name, value in counted._asdict().items()}
    if tx.execute(sa.update(table).where(is_there).values(more)).rowcount == 0:
        tx.execute(sa.insert(table).values(place | counted._asdict()))


def sum_counts(tx: Transaction, seconds: int, since: datetime) -> dict[str, Counted]:
    """What was counted by endpoint in the spans that begin at ``since`` or later."""
    table = service_level_counts
    sums = [sa.func.sum(table.c[name]) for name in Counted._fields]
    query = sa.select(table.c.endpoint, *sums).where(table.c.seconds == seconds, table.c.begins_at >= since)
    rows = tx.execute(query.group_by(table.c.endpoint))
    return {endpoint: Counted(*(int(each) for each in counted)) for endpoint, *counted in rows}


def counts_of(tx: Transaction, endpoint: str, seconds: int, since: datetime) -> list[tuple[datetime, Counted]]:
    """The endpoint's spans that begin at ``since`` or later, the oldest first."""
    table = service_level_counts
    query = sa.select(table).where(table.c.endpoint == endpoint, table.c.seconds == seconds, table.c.begins_at >= since)
    rows = tx.execute(query.order_by(table.c.begins_at))
    return [(row.begins_at, Counted(row.requests, row.failed, row.slow)) for row in rows]


def forget_counts(tx: Transaction, seconds: int, before: datetime) -> None:
    """Delete the spans that begin before."""
    table = service_level_counts
    tx.execute(sa.delete(table).where(table.c.seconds == seconds, table.c.begins_at < before))


def all_marks(tx: Transaction) -> dict[str, dict[int, Counters]]:
    """The counters up to which each endpoint is counted, by version."""
    return {
        row.endpoint: parse(dict[int, Counters], row.counters) for row in tx.execute(sa.select(service_level_marks))
    }


def set_mark(tx: Transaction, endpoint: str, counters: dict[int, Counters]) -> None:
    """Everything in these counters is counted."""
    table, values = service_level_marks, {"counters": to_json(counters)}
    if tx.execute(sa.update(table).where(table.c.endpoint == endpoint).values(values)).rowcount == 0:
        tx.execute(sa.insert(table).values(values | {"endpoint": endpoint}))


def add_window(tx: Transaction, window: Window, recorded_at: datetime) -> bool:
    """Store a revision; False, and nothing changed, when it is there already."""
    key = (windows.c.endpoint == window.endpoint) & (windows.c.end_at == window.end)
    if tx.execute(sa.select(1).where(key, windows.c.revision == window.revision)).first() is not None:
        return False
    tx.execute(
        sa.insert(windows).values(
            endpoint=window.endpoint,
            end_at=window.end,
            revision=window.revision,
            state=window.state,
            body=to_json(window),
            recorded_at=recorded_at,
        )
    )
    return True


def latest_states(tx: Transaction, endpoint: str) -> dict[datetime, WindowState]:
    """State of the last revision by window end."""
    query = sa.select(windows.c.end_at, windows.c.state).where(windows.c.endpoint == endpoint)
    rows = tx.execute(query.order_by(windows.c.end_at, windows.c.revision))
    return {row.end_at: WindowState(row.state) for row in rows}


def latest_window(tx: Transaction, endpoint: str, end: datetime) -> Window | None:
    """The last revision of one window."""
    query = sa.select(windows.c.body).where(windows.c.endpoint == endpoint, windows.c.end_at == end)
    body = tx.execute(query.order_by(windows.c.revision.desc()).limit(1)).scalar_one_or_none()
    return None if body is None else parse(Window, body)


def latest_windows(tx: Transaction, endpoint: str, limit: int | None = None) -> list[Window]:
    """The last revision of each window, of the newest ``limit`` windows, the oldest first."""
    last = (
        sa.select(windows.c.end_at, sa.func.max(windows.c.revision).label("revision"))
        .where(windows.c.endpoint == endpoint)
        .group_by(windows.c.end_at)
        .order_by(windows.c.end_at.desc())
        .limit(limit)
        .subquery()
    )
    is_last = (windows.c.end_at == last.c.end_at) & (windows.c.revision == last.c.revision)
    query = sa.select(windows.c.body).join(last, is_last).where(windows.c.endpoint == endpoint)
    return [parse(Window, body) for body in tx.execute(query.order_by(windows.c.end_at)).scalars()]


def revisions(tx: Transaction, endpoint: str, end: datetime) -> list[Window]:
    """Every revision of one window, the first first."""
    query = sa.select(windows.c.body).where(windows.c.endpoint == endpoint, windows.c.end_at == end)
    return [parse(Window, body) for body in tx.execute(query.order_by(windows.c.revision)).scalars()]


def open_alert(tx: Transaction, endpoint: str, kind: AlertKind) -> Alert | None:
    """The open alert of that kind."""
    is_open = (alerts.c.endpoint == endpoint) & (alerts.c.kind == kind) & alerts.c.resolved_at.is_(None)
    row = tx.execute(sa.select(alerts).where(is_open).with_for_update()).one_or_none()
    return None if row is None else _alert(row)


def add_alert(tx: Transaction, endpoint: str, finding: Finding, *, event_at: datetime, raised_at: datetime) -> Alert:
    """Store a new open alert."""
    values = {
        "endpoint": endpoint,
        "severity": finding.severity,
        "kind": finding.kind,
        "message": finding.message,
        "raised_at": raised_at,
        "event_at": event_at,
    }
    row = tx.execute(sa.insert(alerts).values(values).returning(alerts)).one()
    return _alert(row)


def find_alert(tx: Transaction, alert_id: int) -> Alert | None:
    """The alert of that id, held until the transaction ends."""
    row = tx.execute(sa.select(alerts).where(alerts.c.id == alert_id).with_for_update()).one_or_none()
    return None if row is None else _alert(row)


def resolve(tx: Transaction, alert_id: int, resolved_at: datetime) -> None:
    """Close an alert."""
    tx.execute(sa.update(alerts).where(alerts.c.id == alert_id).values(resolved_at=resolved_at))


def all_alerts(
    tx: Transaction, *, open_only: bool, endpoint: str | None, limit: int | None, kind: AlertKind | None = None
) -> Sequence[Alert]:
    """Alerts, the newest first."""
    query = sa.select(alerts).order_by(alerts.c.id.desc()).limit(limit)
    if open_only:
        query = query.where(alerts.c.resolved_at.is_(None))
    if endpoint is not None:
        query = query.where(alerts.c.endpoint == endpoint)
    if kind is not None:
        query = query.where(alerts.c.kind == kind)
    return [_alert(row) for row in tx.execute(query)]


def _alert(row: sa.Row[Any]) -> Alert:
    return Alert(
        id=row.id,
        endpoint=row.endpoint,
        severity=Severity(row.severity),
        kind=AlertKind(row.kind),
        message=row.message,
        raised_at=row.raised_at,
        event_at=row.event_at,
        resolved_at=row.resolved_at,
    )


def add_parity(tx: Transaction, found: Parity) -> None:
    """Record a proof; the oldest of the model give way."""
    row = {"model": found.model, "recorded_at": found.recorded_at, "body": to_json(found)}
    tx.execute(sa.insert(parity_reports).values(row))
    of_model = parity_reports.c.model == found.model
    ids = sa.select(parity_reports.c.id).where(of_model).order_by(parity_reports.c.id.desc())
    oldest = tx.execute(ids.offset(KEPT_REPORTS - 1).limit(1)).scalar()
    if oldest is not None:
        tx.execute(sa.delete(parity_reports).where(of_model, parity_reports.c.id < oldest))


def parities(tx: Transaction, model: str, limit: int) -> list[Parity]:
    """Recorded proofs of a model, the newest first."""
    query = sa.select(parity_reports.c.body).where(parity_reports.c.model == model)
    bodies = tx.execute(query.order_by(parity_reports.c.id.desc()).limit(limit)).scalars()
    return [parse(Parity, body) for body in bodies]
