"""A home with datasets: real tables of two models, and the versions that were trained on them."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))

from history import BEGIN, SNAPSHOT, plant, record, weather

from relevo.app.services import Services
from relevo.contract import store as contract_store
from relevo.contract.model import AppliedContract
from relevo.contract.parsing import parse_contract
from relevo.registry import store as registry_store
from relevo.registry.model import ModelVersion, Stage

CONTRACT = """
model: {model}
owner: ops-analytics
task: classification
package: flight_delay
sources:
  flights: {{loader: "flight_delay.sources:flights", key: [flight_id], event_time: scheduled_at}}
  weather: {{loader: "flight_delay.sources:weather", key: [origin], event_time: observed_at}}
ask: {{source: flights, at: scheduled_at, inputs: [carrier]}}
label: {{column: delay, source: flights}}
training: {{entry: "flight_delay.train:train"}}
retrain: {{when: {{any_of: [{{age: 28d}}]}}}}
"""
#: Stage of each version of flight-delay, and the versions of its datasets.
TRAINED = ((Stage.ARCHIVED, {"flights": 0, "weather": 0}), (Stage.PRODUCTION, {"flights": 2, "weather": 1}))


def explored(services: Services) -> None:
    """Fill the home: ``flight-delay`` with four versions of flights, and ``turnaround`` with another weather."""
    state, tables = services.state, services.settings.folder("tables")
    for model in ("flight-delay", "turnaround"):
        text = CONTRACT.format(model=model)
        applied = AppliedContract(model, 1, parse_contract(text), text, SNAPSHOT, {}, "8f3c2a91d04b77e1", "maya")
        with state.transaction() as tx:
            contract_store.insert(tx, replace(applied, applied_at=BEGIN))
            services.serving.ensure_endpoint(tx, model)
    plant(state, tables)
    record(state, tables, "turnaround", "weather", weather(3), run="deliver-turnaround-r1", at=BEGIN)
    for number, (stage, datasets) in enumerate(TRAINED, start=1):
        at = BEGIN + timedelta(days=10 * number)
        facts: dict[str, object] = {
            "datasets": {
                name: {"version": version, "rows": 400, "digest": "d" * 64} for name, version in datasets.items()
            }
        }
        run = f"{number:02d}c4d1e8f7a94b1e"
        version = ModelVersion("flight-delay", number, stage, "b" * 64, run, f"deliver-{number}", at, at, facts)
        with state.transaction() as tx:
            registry_store.insert(tx, version)
