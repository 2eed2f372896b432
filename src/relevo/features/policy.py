"""Which views a set of sources can serve. Pure; light to import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relevo.contract.model import Source
from relevo.errors import Invalid, nearest
from relevo.features.model import Aggregation, FeatureView


def check_views(views: Sequence[FeatureView], sources: Iterable[Source]) -> None:
    """Hold the views against the declared sources and each other.

    Raises:
        Invalid: A view reads an unknown source, two views or features share a name, or a view needs times that its
            source does not have.
    """
    known = {source.name: source for source in sources}
    owners: dict[str, str] = {}
    names: set[str] = set()
    for view in views:
        if view.name in names:
            raise Invalid(f"feature view {view.name} is declared twice")
        names.add(view.name)
        if view.source not in known:
            near = nearest(view.source, known)
            hint = f"did you mean {near!r}?" if near else f"known sources: {', '.join(known)}"
            raise Invalid(f"feature view {view.name}: there is no source {view.source!r}", hint=hint)
        _require_times(view, known[view.source])
        for feature in view.features:
            if feature.name in owners:
                raise Invalid(f"feature {feature.name} is declared by both {owners[feature.name]} and {view.name}")
            owners[feature.name] = view.name


def has_times(source: Source) -> bool:
    """Whether rows of the source have a time from which they count."""
    return source.event_time is not None or source.known_time is not None


def _require_times(view: FeatureView, source: Source) -> None:
    if has_times(source):
        return
    timed = [feature.name for feature in view.features if feature.aggregation is not Aggregation.LATEST]
    what = f"feature {timed[0]}" if timed else "its ttl" if view.ttl is not None else None
    if what:
        raise Invalid(f"feature view {view.name}: {what} needs an event_time, and source {source.name} declares none")
