"""Console page of a model's retraining rule and what it decided."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from relevo.console.layout import model_page
from relevo.console.wording import duration, percent
from relevo.contract.model import Contract
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.monitoring.policy import primary_metric

router = APIRouter(tags=["console"], include_in_schema=False)


@router.get("/models/{model}/retraining")
def show_decisions(
    request: Request, model: str, _: Annotated[Principal, Depends(requires(Permission.READ))]
) -> HTMLResponse:
    """The rule in words, and every decision with its reason."""
    services = request.app.state.services
    contract: Contract = services.contracts.current(model).contract
    decisions = services.retraining.decisions(model)
    releases = {release.id: release for release in services.releases.releases(model, limit=None)}
    return model_page(
        request,
        "retraining.html",
        model=model,
        tab="Retraining",
        rule=rule_in_words(contract),
        decisions=decisions,
        releases=releases,
    )


def rule_in_words(contract: Contract) -> list[str]:
    """The contract's rule and its guards, one sentence each; empty when there is no rule."""
    rule = contract.retrain
    if rule is None:
        return []
    conditions = []
    for condition in rule.any_of:
        threshold = condition.threshold
        if isinstance(threshold, timedelta):
            conditions.append(f"the champion is {duration(threshold)} old")
        elif condition.kind == "drift":
            conditions.append(f"{percent(threshold)} of the inputs drifted")
        else:
            conditions.append(f"{primary_metric(contract)} is worse than on its holdout by {threshold:g}")
    needed, of = rule.windows
    sentences = [f"Train again when in {needed} of {of} final windows {' or '.join(conditions)}."]
    guards = rule.guards
    if guards.cool_down:
        sentences.append(f"Not sooner than {duration(guards.cool_down)} after the last training.")
    if guards.at_most is not None:
        sentences.append(f"At most {guards.at_most[0]} times in {duration(guards.at_most[1])}.")
    if guards.freeze_without_labels:
        sentences.append("Not while labels are missing.")
    return sentences
