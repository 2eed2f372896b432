"""A process that runs workflows, to be killed: ``python durable_program.py HOME serve | send WORKFLOW TEXT``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from relevo.errors import JobFailed
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.platform.workflows import Workflows


def note(home: Path, line: str) -> None:
    """Append to the journal of effects, durably."""
    with (home / "journal").open("a") as journal:
        journal.write(line + "\n")
        journal.flush()
        os.fsync(journal.fileno())


def main() -> None:
    home = Path(sys.argv[1])
    settings = Settings(home=home)
    state = State(settings.state_database)
    with state.transaction() as tx:
        metadata.create_all(tx)
    workflows = Workflows(settings, state)
    if sys.argv[2] == "send":
        workflows.send(sys.argv[3], "approval", {"by": sys.argv[4]})
        workflows.close()
        return

    def first() -> dict[str, object]:
        note(home, "first")
        return {"pair": (1, 2)}

    def slow() -> str:
        note(home, "slow begins")
        if not (home / "go").exists():
            time.sleep(600)
        note(home, "slow ends")
        return "slow"

    def fails() -> None:
        note(home, "fails")
        raise JobFailed("the loader said no", field="sources.flights", hint="look at it")

    @workflows.register("deliver")
    async def deliver(model: str) -> dict[str, object]:
        one = await workflows.step(first)
        try:
            await workflows.step(fails)
        except JobFailed as error:
            failed = [error.code, error.message, error.field, error.hint]
        two = await workflows.step(slow)
        approval = await workflows.recv("approval", 3 * 86400, waits_for=f"approval of {model}/1")
        await workflows.step(note, home, f"approved by {approval['by']}", name="approve")
        return {"one": one, "two": two, "failed": failed}

    workflows.launch()
    workflows.start("deliver", "deliver-1", model="flight-delay")
    status = workflows.wait("deliver-1", 600)
    note(home, f"result {status.state} {status.output}")
    workflows.close()


main()
