"""A control plane in small, to be killed: ``python release_program.py HOME [RELEASE...]`` starts those, and goes on.

Everything is real but the training: a plain object that seals a small bundle, and writes each of its steps down.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from release_world import BEGIN, ERIN, MODEL, World, evaluation

from relevo.errors import RelevoError
from relevo.platform.encoding import to_json
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.platform.workflows import Workflows
from relevo.releases.workflow import Deliver

HOME = Path(sys.argv[1])


def note(line: str) -> None:
    with (HOME / "journal").open("a") as journal:
        journal.write(line + "\n")
        journal.flush()
        os.fsync(journal.fileno())


class SealedAtOnce:
    """Stands in for the training: its version's number is what the release's id ends with."""

    def __init__(self, world: World, workflows: Workflows) -> None:
        self._world, self._workflows = world, workflows

    async def train(
        self, release_id: str, model: str, revision: int, as_of: datetime, champion: int | None
    ) -> dict[str, Any]:
        return await self._workflows.step(self._train, release_id, champion, name="train")  # type: ignore[no-any-return]

    def _train(self, release_id: str, champion: int | None) -> dict[str, Any]:
        note(f"train {release_id}")
        version = int(release_id.removeprefix("r"))
        self._world.seal(version, release_id)
        if (HOME / "broken").exists():
            return {"version": version, "facts": {}, "evaluation": {"metrics": "none"}}
        return {"version": version, "facts": {}, "evaluation": to_json(evaluation(champion=champion))}


def main() -> None:
    settings = Settings(home=HOME)
    state = State(settings.state_database)
    with state.transaction() as tx:
        metadata.create_all(tx)
    world = World(state, settings)
    workflows = Workflows(settings, state, poll_seconds=0.05)
    deliver = Deliver(
        workflows,
        releases=world.releases,
        load_testing=world.load_testing,
        shadowing=world.shadowing,
        canary=world.canary,
        training=SealedAtOnce(world, workflows),  # type: ignore[arg-type]
        imports=None,  # type: ignore[arg-type]  # nothing is imported here
        contracts=world.contracts,
        on_withdrawn=lambda model, reason: note(f"alert {model}: {reason}"),
        on_live=lambda model, release_id: note(f"live {model}: {release_id}"),
    )
    workflows.launch()
    deliver.settle()
    for release_id in sys.argv[2:]:
        try:
            deliver.start(MODEL, release_id=release_id, as_of=BEGIN, reason="to see", requested_by=ERIN.name)
        except RelevoError as error:
            note(f"refused {release_id}: {error}")
    time.sleep(600)


main()
