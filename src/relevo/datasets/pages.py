"""Console pages of datasets: all of them, one, two versions beside each other, and profiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from relevo.console.layout import Crumb, dataset_address, page
from relevo.console.version_chart import SHOWN, VersionBar, version_chart
from relevo.console.wording import count
from relevo.datasets import wording
from relevo.datasets.api import SANDBOX, exploration_of, overview_of
from relevo.datasets.model import DatasetVersion
from relevo.datasets.overview import require_rows
from relevo.datasets.profile import MAX_ROWS
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal

router = APIRouter(tags=["console"], include_in_schema=False)
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Number = Annotated[int | None, Query(ge=0, le=2**31 - 1)]


@router.get("/datasets")
def show_datasets(request: Request, _: Reader) -> HTMLResponse:
    """Every dataset at a glance."""
    return page(
        request,
        "datasets.html",
        title="Datasets",
        crumbs=[Crumb("Fleet", "/"), Crumb("Datasets")],
        lines=overview_of(request).lines(),
    )


@router.get("/datasets/{model}/{source}")
def show_dataset(request: Request, model: str, source: str, _: Reader, version: Number = None) -> HTMLResponse:
    """One version, by default the newest, among all of them."""
    overview = overview_of(request)
    history = overview.history(model, source)
    shown = overview.version(model, source, version)
    view = overview.view(shown, request.app.state.services.dataset_references(shown))
    earlier = next((one for one in history if one.version == view.before), None)
    return page(
        request,
        "dataset.html",
        title=f"{model}/{source}",
        crumbs=_crumbs(model, source, f"Version {version}" if version is not None else None),
        model=model,
        source=source,
        shown=shown,
        view=view,
        history=history,
        failed=sum(check.failed > 0 for check in shown.checks),
        gone=[name for name in (earlier.columns if earlier else {}) if name not in shown.columns],
        earlier=earlier,
        chart=_rows_by_version(history, shown),
        drawn=min(len(history), SHOWN),
        kind=wording.kind,
        sampled=MAX_ROWS,
    )


@router.get("/datasets/{model}/{source}/diff")
def show_diff(
    request: Request, model: str, source: str, _: Reader, before: Number = None, after: Number = None
) -> HTMLResponse:
    """Two versions beside each other. The first time, a child process computes it while the page waits."""
    overview = overview_of(request)
    earlier, later = overview.pair(model, source, before, after)
    found = exploration_of(request).compare(require_rows(earlier), require_rows(later), overview.names(later))
    columns = [column for column in found.columns if wording.differs(column)]
    return page(
        request,
        "dataset_diff.html",
        title=f"{model}/{source}, {earlier.version} and {later.version}",
        crumbs=_crumbs(model, source, f"Versions {earlier.version} and {later.version}"),
        model=model,
        source=source,
        history=overview.history(model, source),
        before=earlier,
        after=later,
        found=found,
        columns=columns,
        same=[column.name for column in found.columns if column not in columns],
        words=wording,
    )


@router.get("/datasets/{model}/{source}/profiles")
def show_profiles(
    request: Request, model: str, source: str, _: Reader, before: Number = None, after: Number = None
) -> HTMLResponse:
    """The profiles of two versions side by side, each in a frame of its own."""
    overview = overview_of(request)
    pair = overview.pair(model, source, before, after)
    for version in pair:  # drawn here, so that a mistake is told by this page and not inside a frame
        exploration_of(request).profile(require_rows(version))
    return page(
        request,
        "dataset_profiles.html",
        title=f"Profiles of {model}/{source}, {pair[0].version} and {pair[1].version}",
        crumbs=_crumbs(model, source, f"Profiles {pair[0].version} and {pair[1].version}"),
        model=model,
        source=source,
        history=overview.history(model, source),
        before=pair[0],
        after=pair[1],
    )


@router.get("/datasets/{model}/{source}/{version}/profile")
def show_profile(request: Request, model: str, source: str, version: int, _: Reader) -> HTMLResponse:
    """A profile as a document of its own, sandboxed: its scripts are not ours."""
    found = require_rows(overview_of(request).version(model, source, version))
    return HTMLResponse(exploration_of(request).profile(found), headers=SANDBOX)


def _crumbs(model: str, source: str, last: str | None) -> list[Crumb]:
    way = [Crumb("Fleet", "/"), Crumb("Datasets", "/datasets")]
    name = f"{model}/{source}"
    return [*way, Crumb(name)] if last is None else [*way, Crumb(name, dataset_address(model, source)), Crumb(last)]


def _rows_by_version(history: Sequence[DatasetVersion], shown: DatasetVersion) -> Markup:
    bars = [
        VersionBar(
            label=str(one.version),
            value=one.rows,
            text=f"version {one.version}: {count(one.rows)} rows, loaded {one.created_at:%Y-%m-%d %H:%M} UTC",
            is_shown=one.version == shown.version,
        )
        for one in reversed(history)
    ]
    return version_chart(bars, f"Rows of {shown.model}/{shown.source} by version")
