"""The durable workflow of one window: flush the log, analyse, record, alert, and act on a final window.

One watch of an endpoint runs at a time, in the order in which the windows became due: a verdict on k of n windows
needs the ones before it. The end of one starts the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from relevo.errors import NotFound
from relevo.monitoring.model import DueWindow, Window, WindowState
from relevo.monitoring.service import Monitoring
from relevo.platform.state import State
from relevo.platform.workflows import Workflows
from relevo.predictions.log import PredictionLog

logger = logging.getLogger(__name__)

WORKFLOW = "watch"
#: How often a window is tried before it is left out, and the alert about it stays.
ATTEMPTS = 3
FLUSH_SECONDS = 30.0


class Watch:
    """Starts and runs the watches. Make it before ``Workflows.launch``, which it registers a workflow with.

    Args:
        state: Of the windows and alerts.
        monitoring: Analyses and judges.
        workflows: Runs the steps durably.
        log: Is flushed before each analysis.
        on_final: Called with each final window; must be idempotent, as it is called again after a crash.
    """

    def __init__(
        self,
        state: State,
        *,
        monitoring: Monitoring,
        workflows: Workflows,
        log: PredictionLog,
        on_final: Callable[[Window], object],
    ) -> None:
        self._state = state
        self._monitoring = monitoring
        self._workflows = workflows
        self._log = log
        self._on_final = on_final
        workflows.register(WORKFLOW)(self.run)

    def start_due_watches(self, endpoint: str) -> list[str]:
        """Start the watch of the window that is due first; the ids of what is running now: one, or none.

        Call it after each advance of event time and each second. Idempotent; cheap when nothing is due. A replay waits
        until those ids, and whatever follows from them, are no longer at work (``Workflows.activities``).
        """
        for due in self._monitoring.due(endpoint):
            running = self._next_attempt(endpoint, due)
            if running is not None:
                return [running]
        return []

    async def run(self, model: str, start: str, end: str, state: str) -> dict[str, Any]:
        """The workflow. Its steps return references only; windows lie in the state store."""
        flow = self._workflows
        try:
            await flow.report(f"analysing the {state} window to {end[:16]}")
            await flow.step(self._log.flush, FLUSH_SECONDS, name="flush", retries=3)
            revision = await flow.step(self.analyse, model, start, end, state, name="analyse", retries=3)
            changed = await flow.step(self.judge, model, end, name="judge")
            if state == WindowState.FINAL:
                await flow.step(self.finish, model, end, name="finish")
        except Exception as error:
            await flow.step(self.fail, model, start, end, state, str(error), name="fail")
            raise
        finally_started = await flow.step(self.start_due_watches, model, name="next")
        return {"revision": revision, "alerts": changed, "next": finally_started}

    def analyse(self, endpoint: str, start: str, end: str, state: str) -> int:
        """Step: analyse and record the window, and earlier ones that have got labels since; gives its revision."""
        window = self._monitoring.analyse(
            endpoint, datetime.fromisoformat(start), datetime.fromisoformat(end), WindowState(state)
        )
        revised = self._monitoring.revise(endpoint) if window.state is WindowState.FINAL else []
        with self._state.transaction() as tx:
            for one in (*revised, window):
                self._monitoring.record(tx, one)
        return window.revision

    def judge(self, endpoint: str, end: str) -> list[int]:
        """Step: raise and resolve alerts; gives the ids of those that changed."""
        with self._state.transaction() as tx:
            self._monitoring.report_watched(tx, endpoint, datetime.fromisoformat(end))
            return [alert.id for alert in self._monitoring.judge(tx, endpoint)]

    def finish(self, endpoint: str, end: str) -> None:
        """Step: hand the final window on."""
        self._on_final(self._monitoring.window(endpoint, datetime.fromisoformat(end)))

    def fail(self, endpoint: str, start: str, end: str, state: str, why: str) -> None:
        """Step: say by an alert that the window could not be analysed."""
        due = DueWindow(datetime.fromisoformat(start), datetime.fromisoformat(end), WindowState(state))
        with self._state.transaction() as tx:
            self._monitoring.report_unwatched(tx, endpoint, due, why)

    def _next_attempt(self, endpoint: str, due: DueWindow) -> str | None:
        """Id of the window's watch that runs or was started now; None when every attempt is used up."""
        first = f"watch-{endpoint}-{due.end:%Y%m%dT%H%M%SZ}-{due.state}"
        for attempt in range(1, ATTEMPTS + 1):
            workflow_id = first if attempt == 1 else f"{first}-again-{attempt}"
            try:
                status = self._workflows.status(workflow_id)
            except NotFound:
                self._workflows.start(
                    WORKFLOW,
                    workflow_id,
                    model=endpoint,
                    start=due.start.isoformat(),
                    end=due.end.isoformat(),
                    state=due.state.value,
                )
                return workflow_id
            if status.state == "running":
                return workflow_id
        return None
