"""An installation for the benchmarks of serving, as the control plane would leave it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import flights
from workloads import Model

from relevo.identity.model import Role
from relevo.identity.service import Identity
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.predictions import frames
from relevo.registry.bundles import store_bundle, write_bundle
from relevo.registry.keys import load_signing_key
from relevo.runtimes.compilation import compile_model
from relevo.serving.model import Arm, EndpointSettings, LogMode
from relevo.serving.service import Serving

LOGS: tuple[LogMode, ...] = ("buffered", "durable")


class Home:
    """Endpoints with their versions, one for each kind of log, and a token that may predict."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder)
        self.state = State(self.settings.state_database)
        identity = Identity(self.state)
        with self.state.transaction() as tx:
            metadata.create_all(tx)
            identity.create_principal(tx, "bench", Role.APPLICATION)
            self.token = identity.create_token(tx, "bench", Role.APPLICATION, note="bench")
        self.serving = Serving(self.state, self.settings)
        self.endpoints: list[str] = []

    def release(self, model: Model) -> None:
        """Seal the model and route all traffic of its endpoints, one a kind of log, to it."""
        compiled = compile_model(model.fitted, model.signature, model.holdout)
        if compiled.runtime != model.runtime:
            sys.exit(f"{model.name}: expected the runtime {model.runtime}, got {compiled.agreement}")
        objects, key = Objects(self.settings.folder("objects")), load_signing_key(self.settings.folder("keys"))
        for log in LOGS:
            name = f"{model.name}-{log}"
            folder = self.settings.folder("jobs") / name
            manifest = write_bundle(
                folder,
                model=name,
                version=1,
                run_id="bench",
                runtime=compiled.runtime,
                signature=model.signature,
                files=compiled.files,
                views=model.views,
            )
            with self.state.transaction() as tx:
                self.serving.ensure_endpoint(tx, name, EndpointSettings(log=log))
                self.serving.place(tx, name, 1, store_bundle(folder, manifest, objects, key))
                self.serving.set_route(
                    tx, name, [Arm(1, 100)], reason="bench", set_by="bench", effective_event_at=flights.THROUGH
                )
            if model.views:
                flights.fill(self.settings.root / "online.db", name)
            self.endpoints.append(name)

    @property
    def command(self) -> list[str]:
        """Starts a worker as the supervisor does."""
        return [sys.executable, "-m", "relevo.serving.worker", "--fd", "{fd}", "--worker", "0"]

    @property
    def variables(self) -> dict[str, str]:
        """Of the worker's environment."""
        return {"RELEVO_HOME": str(self.settings.root)}

    def wait_until_loaded(self) -> None:
        for name in self.endpoints:
            self.serving.await_loaded(name, 1, 120)

    def counted(self) -> dict[str, int]:
        """Requests by endpoint, as the worker reports them once it has come to rest."""
        time.sleep(1.5)
        return {name: sum(one.requests for one in self.serving.counters(name).values()) for name in self.endpoints}

    def logged(self) -> Counter[str]:
        """Answered requests by endpoint in the segments of the log."""
        paths = sorted(self.settings.folder("log").glob("*/*-*.*"))
        records = (record for path in paths for record in frames.scan(path.read_bytes()))
        return Counter(record.endpoint for record in records if record.status == "ok")

    def close(self) -> None:
        self.state.close()
