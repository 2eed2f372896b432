"""What a version promised when it was sealed: its baseline profile and holdout metrics; and asking it again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from relevo.errors import Corrupted
from relevo.monitoring.model import Reference
from relevo.registry.bundles import read_manifest
from relevo.registry.service import Registry
from relevo.runtimes.loading import load_runtime
from relevo.statistics.baseline import Baseline, parse_baseline
from relevo.statistics.metrics import Array

BASELINE_FILE = "baseline.json"
#: Rows that a runtime is asked about at once.
BATCH_ROWS = 2000


class References:
    """Reads sealed bundles; what is sealed never changes, so it is kept in memory. Thread-safe.

    Args:
        registry: Knows each version's facts, and gives its verified bundle.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, int], Reference] = {}

    def of(self, model: str, number: int) -> Reference:
        """The reference of a version. Without ``baseline.json`` in its bundle it has no profiles.

        Raises:
            NotFound: There is no such version.
            Corrupted: The bundle or its baseline cannot be read.
        """
        if (model, number) not in self._known:
            self._known[model, number] = self._read(model, number)
        return self._known[model, number]

    def predict(self, model: str, number: int, rows: Sequence[list[object]]) -> Array:
        """What the version's sealed runtime answers for ``rows``: ``(n,)`` or ``(n, k)``."""
        folder = self._registry.fetch(self._registry.version(model, number).bundle)
        runtime = load_runtime(folder, read_manifest(folder), python=self._registry.python(folder))
        try:
            answers: list[object] = []
            for start in range(0, len(rows), BATCH_ROWS):
                answers.extend(runtime.predict(list(rows[start : start + BATCH_ROWS])))
        finally:
            runtime.close()
        return np.array(answers, dtype=np.float64)

    def _read(self, model: str, number: int) -> Reference:
        version = self._registry.version(model, number)
        folder = self._registry.fetch(version.bundle)
        file = folder / BASELINE_FILE
        try:
            baseline = parse_baseline(json.loads(file.read_bytes())) if file.exists() else Baseline()
        except ValueError as error:
            raise Corrupted(f"The baseline of {model}/{number} cannot be read: {error}") from error
        inputs = tuple(column.name for column in read_manifest(folder).signature.inputs)
        return Reference(
            version=number,
            inputs=inputs,
            # In the model's order: JSON objects have none.
            baseline=replace(baseline, columns={n: baseline.columns[n] for n in inputs if n in baseline.columns}),
            importances=_numbers(version.facts.get("importances")),
            metrics=_numbers(version.facts.get("metrics")),
        )


def _numbers(named: object) -> dict[str, float]:
    if not isinstance(named, Mapping):
        return {}
    numbers = {str(name): float(value) for name, value in named.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
