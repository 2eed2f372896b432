"""What the control plane does by itself as wall time passes: keep features fresh, judge windows that are due."""

from __future__ import annotations

import logging
import threading
import time

from relevo.app.services import Services

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
MATERIALISE_EVERY_SECONDS = 10.0


class Schedule:
    """A thread that looks every second at each endpoint on the wall clock; a replay's driver does so itself."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relevo-schedule", daemon=True)
        self._materialised: dict[str, float] = {}
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
            for endpoint in self._services.serving.endpoints():
                try:
                    self._look(endpoint.name)
                except Exception:
                    self.failures += 1
                    logger.exception("the schedule of %s failed (%d failures so far)", endpoint.name, self.failures)

    def _look(self, endpoint: str) -> None:
        services = self._services
        if services.clock.is_replay(endpoint):
            return
        if time.monotonic() - self._materialised.get(endpoint, -MATERIALISE_EVERY_SECONDS) >= MATERIALISE_EVERY_SECONDS:
            services.materialise(endpoint, services.clock.now(endpoint))
            self._materialised[endpoint] = time.monotonic()
        services.watch.start_due_watches(endpoint)
