"""Console pages of releases: what waits for whom, the evidence of a version, what happened, and what people may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Request, Response
from fastapi.responses import HTMLResponse

from relevo.console.layout import Crumb, model_address, model_page, page, redirect
from relevo.errors import NotAllowed
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import parse
from relevo.releases import api, policy
from relevo.releases.model import Evaluation, LoadFigures, Release, ReleaseState, ShadowFigures
from relevo.releases.service import Releases
from relevo.serving.model import ShadowCounters
from relevo.statistics.metrics import METRICS

router = APIRouter(tags=["console"], include_in_schema=False)
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Approver = Annotated[Principal, Depends(requires(Permission.APPROVE))]
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]
Engineer = Annotated[Principal, Depends(requires(Permission.APPLY))]
Reason = Annotated[str, Form(min_length=1, max_length=2000)]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of the holdout: the challenger's beside the champion's and the baseline's.

    ``gain`` is positive when the challenger is better than the champion, whichever way is better.
    """

    name: str
    greater_is_better: bool
    value: float | None
    champion: float | None
    baseline: float | None
    gain: float | None


@router.get("/approvals")
def show_approvals(request: Request, principal: Reader) -> HTMLResponse:
    """The releases that wait for a person, each with its evidence in short."""
    releases = _releases(request)
    waiting = releases.releases(state=ReleaseState.WAITING_FOR_APPROVAL)
    return page(
        request,
        "approvals.html",
        title="Approvals",
        crumbs=[Crumb("Fleet", "/"), Crumb("Approvals")],
        cards=[_card(request, release, principal) for release in waiting],
    )


@router.post("/approvals/{release_id}")
def decide(
    request: Request,
    release_id: str,
    principal: Approver,
    decision: Annotated[str, Form(pattern="^(approve|refuse)$")],
    reason: Reason,
) -> Response:
    """Approve or refuse a release."""
    word = api.Word(approved=decision == "approve", reason=reason)
    api.decide(request, release_id, word, principal)
    return redirect("/approvals", "approved" if word.approved else "refused")


@router.get("/models/{model}/releases")
def show_releases(request: Request, model: str, principal: Reader) -> HTMLResponse:
    """Every attempt to bring a version to production, and every change of the traffic."""
    services = request.app.state.services
    routes = services.serving.routes(model)
    is_imported = services.contracts.current(model).contract.imported is not None
    return model_page(
        request,
        "releases.html",
        model=model,
        tab="Releases",
        releases=_releases(request).releases(model, limit=200),
        routes=routes[::-1],
        may_train=principal.may(Permission.APPLY) and not is_imported,
        may_operate=principal.may(Permission.OPERATE),
        back_to=policy.previous_champion([route.champion for route in routes if len(route.arms) == 1]),
    )


@router.post("/models/{model}/train")
def train(request: Request, model: str, principal: Engineer, reason: Reason) -> Response:
    """Train a challenger now."""
    api.train(request, model, api.Reason(reason=reason), principal)
    return redirect(model_address(model, "releases"), "training")


@router.post("/models/{model}/rollback")
def roll_back(request: Request, model: str, principal: Operator, reason: Reason) -> Response:
    """Put the previous champion back."""
    api.roll_back(request, model, api.Reason(reason=reason), principal)
    return redirect(model_address(model, "releases"), "rolled-back")


@router.post("/models/{model}/releases/{release_id}/cancel")
def cancel(request: Request, model: str, release_id: str, principal: Operator, reason: Reason) -> Response:
    """Stop a release that is under way."""
    api.cancel(request, release_id, api.Reason(reason=reason), principal)
    return redirect(model_address(model, "releases"), "cancelled")


@router.get("/models/{model}/versions/{number}")
def show_evidence(
    request: Request, model: str, number: Annotated[int, Path(ge=1, le=2**31 - 1)], principal: Reader
) -> HTMLResponse:
    """Everything that a decision on a version rests on."""
    services = request.app.state.services
    version = services.registry.version(model, number)
    releases = _releases(request)
    evidence = releases.evidence(model, number)
    task = services.contracts.current(model).contract.task
    evaluation = evidence.evaluation if evidence is not None else None
    under = next((one for one in releases.releases(model, limit=None) if one.version == number), None)
    waits = under is not None and under.state is ReleaseState.WAITING_FOR_APPROVAL
    load = None if evidence is None else evidence.facts.get("load_test")
    agreement = version.facts.get("agreement")
    importances = version.facts.get("importances")
    return model_page(
        request,
        "evidence.html",
        model=model,
        tab="Versions",
        crumbs=[Crumb(f"v{number}")],
        version=version,
        evidence=evidence,
        evaluation=evaluation,
        load=parse(LoadFigures, load) if load is not None else None,
        shadow=_shadow(services.serving.shadow_counters(model).get(number)),
        metrics=metric_rows(task, evaluation) if evaluation is not None else [],
        slices=_slice_rows(evaluation) if evaluation is not None else [],
        slice_metrics=list(METRICS[task]),
        release=under,
        card=_card(request, under, principal) if under is not None and waits else None,
        approvals=releases.approvals(model, number),
        agreement=agreement if isinstance(agreement, Mapping) else None,
        importances=_largest(importances) if isinstance(importances, Mapping) else [],
        pins=_pins(version.facts),
        mlflow=version.mlflow_page,
    )


def metric_rows(task: str, evaluation: Evaluation) -> list[MetricRow]:
    """The metrics of an evaluation side by side, in the order of the task's metrics."""
    rows = []
    for name, metric in METRICS[task].items():
        value, champion = evaluation.metrics.get(name), evaluation.champion_metrics.get(name)
        gain = None
        if value is not None and champion is not None:
            gain = value - champion if metric.greater_is_better else champion - value
        baseline = evaluation.baseline_metrics.get(name)
        if value is not None or champion is not None:
            rows.append(MetricRow(name, metric.greater_is_better, value, champion, baseline, gain))
    return rows


@dataclass(frozen=True, slots=True)
class Card:
    """A release that waits, as a reviewer sees it. ``problem`` says why this viewer may not decide."""

    release: Release
    evidence: object
    metrics: list[MetricRow]
    approvals: object
    needed: int
    problem: str | None


def _card(request: Request, release: Release, principal: Principal) -> Card:
    assert release.version is not None
    services, releases = request.app.state.services, _releases(request)
    evidence = releases.evidence(release.model, release.version)
    applied = services.contracts.revision(release.model, release.contract_revision)
    contract = applied.contract
    approvals = releases.approvals(release.model, release.version)
    problem = None
    if not principal.may(Permission.APPROVE):
        problem = f"Your role, {principal.role}, may not approve. Somebody with the role reviewer or admin can."
    elif any(word.principal == principal.name for word in approvals):
        problem = "You have decided on this release. It waits for others."
    else:
        try:
            policy.check_approver(principal, requested_by=release.requested_by, applied_by=applied.applied_by)
        except NotAllowed as error:
            problem = f"{error.message} {error.hint or ''}".strip()
    return Card(
        release=release,
        evidence=evidence,
        metrics=metric_rows(contract.task, evidence.evaluation) if evidence is not None else [],
        approvals=approvals,
        needed=contract.release.approvals,
        problem=problem,
    )


def _shadow(counters: ShadowCounters | None) -> ShadowFigures | None:
    return None if counters is None else policy.shadow_figures(counters)


def _slice_rows(evaluation: Evaluation) -> list[tuple[str, str, dict[str, float]]]:
    rows = [(*name.partition("=")[::2], metrics) for name, metrics in evaluation.slices.items()]
    return sorted(rows, key=lambda row: (row[0], -row[2].get("rows", 0.0), row[1]))


def _largest(importances: Mapping[object, object]) -> list[tuple[str, float]]:
    numbers = [(str(name), float(value)) for name, value in importances.items() if isinstance(value, int | float)]
    return sorted(numbers, key=lambda item: -item[1])[:15]


def _pins(facts: Mapping[str, object]) -> list[tuple[str, object]]:
    """What the version was made from, without what has a place of its own on the page."""
    shown = {"agreement", "importances", "metrics", "datasets", "slices_left_out", "champion_note"}
    shown |= {"compared_on", "logged_metrics"}
    return [(name, value) for name, value in facts.items() if name not in shown and value is not None]


def _releases(request: Request) -> Releases:
    releases: Releases = request.app.state.services.releases
    return releases
