"""What the console's frame shows around every page, taken from all concepts."""

from __future__ import annotations

from collections.abc import Sequence

from relevo.app.fleet import health, shares
from relevo.app.services import Services
from relevo.console.layout import Doing, ModelHeader
from relevo.platform.activities import Activity, ActivityState
from relevo.releases.model import ReleaseState


class ServicesAround:
    """Reads the frame's facts; each call is a short read of the state store."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def waiting(self) -> int:
        """How many releases wait for approval."""
        return len(self._services.releases.releases(state=ReleaseState.WAITING_FOR_APPROVAL))

    def alerts(self) -> int:
        """How many alerts are open."""
        return len(self._services.monitoring.alerts(open_only=True))

    def doing(self, model: str | None = None) -> Sequence[Doing]:
        """What goes on, in all or for one model."""
        activities = self._services.workflows.activities
        found = activities.open() if model is None else activities.of(model)
        return [_doing(activity) for activity in found if activity.text]

    def header(self, model: str) -> ModelHeader:
        """What stands above the pages of a model.

        Raises:
            NotFound: There is no such model.
        """
        services = self._services
        applied = services.contracts.current(model)
        route = services.serving.current_route(model)
        alerts = services.monitoring.alerts(open_only=True, endpoint=model)
        return ModelHeader(
            name=model,
            owner=applied.contract.owner,
            task=applied.contract.task.value,
            live=shares(route),
            health=health(route, [alert.severity for alert in alerts]),
            event_at=services.clock.now(model),
            is_replay=services.clock.is_replay(model),
        )


def _doing(activity: Activity) -> Doing:
    return Doing(activity.model, activity.state is ActivityState.WAITING, activity.text)
