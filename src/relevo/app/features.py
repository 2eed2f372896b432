"""Feature views as people see them: what a model declares, how full each is, and who uses it.

Who uses a view is known by contracts, the registry and the routes alike, so this stands above all three, in ``app``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from relevo.app.services import Services
from relevo.contract.model import AppliedContract
from relevo.errors import NotFound, nearest
from relevo.features.model import FeatureView, definition_of, view_id
from relevo.features.online import Progress
from relevo.features.service import ViewFreshness, views_of
from relevo.registry.model import ModelVersion


@dataclass(frozen=True, slots=True)
class ViewLine:
    """A view at a glance. Times are event time; ``is_fresh`` is None where no limit is declared or nothing is known.

    ``definition`` is a digest: a changed view is another one, and both can be served. ``is_declared``: by the contract
    in force, not only by versions that are placed.
    """

    model: str
    view: str
    definition: str
    entity: str
    key: tuple[str, ...]
    source: str
    features: tuple[str, ...]
    is_declared: bool
    versions: tuple[int, ...]  # placed on the gateway
    filled_through: datetime | None
    newest_at: datetime | None
    fresh_within_seconds: float | None
    age_seconds: float | None
    is_fresh: bool | None


@dataclass(frozen=True, slots=True)
class VersionUse:
    """A model version that uses a view, and the share of its endpoint's traffic that it answers, in percent."""

    version: int
    stage: str
    percent: float


@dataclass(frozen=True, slots=True)
class Use:
    """One model's use of one definition of a view; ``percent`` of its endpoint's traffic depends on it."""

    model: str
    view: str
    definition: str
    is_declared: bool
    revisions: tuple[int, ...]  # of the contract
    versions: tuple[VersionUse, ...]
    percent: float


def view_lines(services: Services, model: str) -> list[ViewLine]:
    """The views that the contract in force declares, and those of versions that are placed.

    Raises:
        NotFound: There is no such model.
    """
    applied = services.contracts.current(model)
    fills = services.features.fills(model)
    now = services.clock.now(model)
    declared = {view_id(model, view): view for view in views_of(applied)}
    placed: dict[str, tuple[FeatureView, list[int]]] = {}
    for placement in services.serving.placements(model):
        for view in _views(services, services.registry.version(model, placement.version)):
            placed.setdefault(view_id(model, view), (view, []))[1].append(placement.version)
    every = declared | {key: view for key, (view, _) in placed.items()}
    return [
        _line(model, view, fills.get(key), now, is_declared=key in declared, versions=placed.get(key, (view, []))[1])
        for key, view in every.items()
    ]


def impact(services: Services, view: str) -> list[Use]:
    """Who uses a view, over all models: given by its name, or as ``name:definition`` for one definition of it.

    Raises:
        NotFound: No contract ever declared it; the message names the nearest.
    """
    name, _, definition = view.partition(":")
    found: dict[tuple[str, str], Use] = {}
    names: set[str] = set()
    for model in services.contracts.models():
        for use in _uses(services, model):
            names.add(use.view)
            if use.view == name and use.definition.startswith(definition):
                found[model, use.definition] = use
    if not found:
        near = nearest(name, names)
        known = sorted(names)
        hint = f"Did you mean {near!r}?" if near and near != name else f"Known views: {', '.join(known) or 'none'}."
        raise NotFound(f"There is no feature view {view!r}.", hint=hint)
    return list(found.values())


def _uses(services: Services, model: str) -> Iterator[Use]:
    """Every definition of every view of a model, with the revisions and versions that use it."""
    current = services.contracts.current(model)
    route = services.serving.current_route(model)
    shares = {} if route is None else {arm.version: arm.percent for arm in route.arms}
    revisions: dict[tuple[str, str], list[int]] = {}
    for applied in _revisions(services, current):
        for view in views_of(applied):
            revisions.setdefault((view.name, definition_of(view)), []).append(applied.revision)
    versions: dict[tuple[str, str], list[VersionUse]] = {}
    for version in reversed(services.registry.versions(model)):
        use = VersionUse(version.number, version.stage.value, shares.get(version.number, 0.0))
        for key in _definitions(services, version):
            versions.setdefault(key, []).append(use)
    for name, definition in dict.fromkeys([*revisions, *versions]):
        users = tuple(versions.get((name, definition), ()))
        of_view = tuple(revisions.get((name, definition), ()))
        yield Use(
            model=model,
            view=name,
            definition=definition,
            is_declared=current.revision in of_view,
            revisions=of_view,
            versions=users,
            percent=sum(use.percent for use in users),
        )


def _revisions(services: Services, current: AppliedContract) -> Iterator[AppliedContract]:
    for number in range(1, current.revision):
        yield services.contracts.revision(current.model, number)
    yield current


def _definitions(services: Services, version: ModelVersion) -> list[tuple[str, str]]:
    return [(view.name, definition_of(view)) for view in _views(services, version)]


def _views(services: Services, version: ModelVersion) -> list[FeatureView]:
    """What the version looks up: the views of the contract revision that it was trained by."""
    revision = version.facts.get("contract_revision")
    return [] if revision is None else views_of(services.contracts.revision(version.model, int(str(revision))))


def _line(
    model: str, view: FeatureView, fill: Progress | None, now: datetime, *, is_declared: bool, versions: list[int]
) -> ViewLine:
    found = None if fill is None else ViewFreshness(view, fill.newest_at, now)
    return ViewLine(
        model=model,
        view=view.name,
        definition=definition_of(view),
        entity=view.entity.name,
        key=view.entity.key,
        source=view.source,
        features=tuple(feature.name for feature in view.features),
        is_declared=is_declared,
        versions=tuple(sorted(versions)),
        filled_through=None if fill is None else fill.through,
        newest_at=None if fill is None else fill.newest_at,
        fresh_within_seconds=None if view.fresh_within is None else view.fresh_within.total_seconds(),
        age_seconds=None if found is None or found.age is None else found.age.total_seconds(),
        is_fresh=None if found is None else found.is_fresh,
    )
