"""What the control plane does by itself as time passes: features, due windows, the gateway's reports, cleaning up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from relevo.app.services import Services
from relevo.errors import RelevoError
from relevo.monitoring.model import AlertKind
from relevo.platform.clock import utc_now
from relevo.serving.model import LogLosses

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
MATERIALISE_EVERY_SECONDS = 10.0
SERVICE_LEVELS_EVERY_SECONDS = 10.0
COLLECT_EVERY_SECONDS = 24 * 3600.0


class Schedule:
    """A thread that looks every second at each endpoint on the wall clock; a replay's driver does so itself.

    What the gateway reports is of the wall clock in a replay too.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relevo-schedule", daemon=True)
        self._materialised: dict[str, float] = {}
        self._collected = -COLLECT_EVERY_SECONDS  # the first look collects: a restart every day does not put it off
        self._levels_seen = -SERVICE_LEVELS_EVERY_SECONDS
        self._log_losses: dict[str, LogLosses] | None = None
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the look under way."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            self._try("listing the endpoints", self._look_at_endpoints)
            self._try("looking at what the gateway has loaded", self._services.monitoring.judge_loading)
            self._try("looking at the service levels", self._look_at_service_levels)
            self._try("looking at the log", self._look_at_the_log)
            self._try("collecting what is no longer used", self._collect)

    def _look_at_endpoints(self) -> None:
        for endpoint in self._services.serving.endpoints():
            self._try(f"the schedule of {endpoint.name}", partial(self._look, endpoint.name))

    def _try(self, what: str, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception:
            self.failures += 1
            logger.exception("%s failed (%d failures so far)", what, self.failures)

    def _look_at_the_log(self) -> None:
        """Raise or resolve the alerts about predictions that could not be logged.

        What living workers lost before the first look counts as new: the disk that was full for them may have ended the
        control plane too. A look that fails is taken again from where the last one ended.
        """
        serving, monitoring = self._services.serving, self._services.monitoring
        before = serving.log_losses(of_the_dead=True) if self._log_losses is None else self._log_losses
        now = serving.log_losses()
        raised = {alert.endpoint for alert in monitoring.alerts(open_only=True, kind=AlertKind.LOG, limit=None)}
        for endpoint, losses in now.items():
            lost = losses.since(before.get(endpoint, LogLosses()))
            if lost is not None or endpoint in raised:
                monitoring.report_log(endpoint, lost)
        self._log_losses = now

    def _collect(self) -> None:
        if time.monotonic() - self._collected >= COLLECT_EVERY_SECONDS:
            self._collected = time.monotonic()
            self._services.collect()

    def _look_at_service_levels(self) -> None:
        if time.monotonic() - self._levels_seen >= SERVICE_LEVELS_EVERY_SECONDS:
            self._levels_seen = time.monotonic()
            self._services.service_levels.look(utc_now())

    def _bring_up_to_date(self, endpoint: str) -> None:
        """Fill the features, and look at their freshness even when that fails: then it matters most."""
        try:
            self._services.materialise(endpoint, self._services.clock.now(endpoint))
        except RelevoError as error:  # its alert is raised; windows are judged all the same
            self.failures += 1
            logger.error("the features of %s could not be brought up to date: %s", endpoint, error.message)
        self._services.judge_freshness(endpoint)

    def _look(self, endpoint: str) -> None:
        services = self._services
        if services.clock.is_replay(endpoint):
            return
        if time.monotonic() - self._materialised.get(endpoint, -MATERIALISE_EVERY_SECONDS) >= MATERIALISE_EVERY_SECONDS:
            self._materialised[endpoint] = time.monotonic()
            self._bring_up_to_date(endpoint)
        services.watch.start_due_watches(endpoint)
