"""The parity proof: what the log says was served, held against what the sources give, version by version."""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter

import polars as pl

from relevo.contract.service import ContractService
from relevo.errors import Conflict, NotFound
from relevo.features.comparing import Comparing
from relevo.features.model import FeatureView
from relevo.features.parity import AT, ID, LOGGED, LOOKED_UP, ROW, THROUGH, Cause, FeatureParity, added
from relevo.monitoring import store
from relevo.monitoring.model import Lag, Parity
from relevo.platform.clock import EventClock, utc_now
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.predictions.log import PredictionLog
from relevo.registry.bundles import read_manifest
from relevo.registry.service import Registry

#: Without another word: the last day that was predicted in, and no more rows than this, spread over it evenly.
LAST = timedelta(hours=24)
LIMIT = 1_000_000
FLUSH_SECONDS = 30.0
_QUANTILES = (0.5, 0.9, 0.99)


class ParityService:
    """Runs and remembers proofs. Thread-safe; of a model one runs at a time.

    Args:
        state: Where proofs are recorded.
        settings: Give a folder for what the children read.
        log: What was served.
        registry: Knows the views of each version, and the contract revision that it was trained by.
        contracts: Knows the models.
        comparing: Starts the children.
        clock: Event time of the endpoints.
    """

    def __init__(
        self,
        state: State,
        settings: Settings,
        *,
        log: PredictionLog,
        registry: Registry,
        contracts: ContractService,
        comparing: Comparing,
        clock: EventClock,
    ) -> None:
        self._state = state
        self._settings = settings
        self._log = log
        self._registry = registry
        self._contracts = contracts
        self._comparing = comparing
        self._clock = clock
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def prove(
        self,
        model: str,
        *,
        last: timedelta | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = LIMIT,
    ) -> Parity:
        """Recompute what was looked up in a window of event time, compare, and record what was found.

        Args:
            model: Whose endpoint.
            last: Length of the window up to ``end``; default a day, unless ``start`` is given.
            start: Its first asked time.
            end: Its last one; default: the endpoint's event time, or the newest prediction when that is older.
            limit: At most about so many rows, chosen by their ids.

        Raises:
            NotFound: There is no such model, or no prediction in the window.
            Conflict: A proof of the model is under way.
            JobFailed: A loader failed in the child.
        """
        self._contracts.current(model)
        lock = self._locks[model]
        if not lock.acquire(blocking=False):
            raise Conflict(f"A parity proof of {model} is under way.", hint="Wait for it, then ask again.")
        try:
            found = self._prove(model, last, start, end, limit)
        finally:
            lock.release()
        with self._state.transaction() as tx:
            store.add_parity(tx, found)
        return found

    def latest(self, model: str) -> Parity | None:
        """The last recorded proof of a model."""
        with self._state.read() as tx:
            return next(iter(store.parities(tx, model, 1)), None)

    def history(self, model: str, limit: int) -> list[Parity]:
        """Recorded proofs of a model, the newest first."""
        with self._state.read() as tx:
            return store.parities(tx, model, limit)

    def _prove(
        self, model: str, last: timedelta | None, start: datetime | None, end: datetime | None, limit: int
    ) -> Parity:
        began = perf_counter()
        self._log.flush(FLUSH_SECONDS)
        answered = self._log.rows(model).filter(pl.col("status") == "ok")
        start, end = self._window(model, answered, last, start, end)
        rows = answered.filter(pl.col("asked_at").is_between(start, end))
        counted = _counted(rows)
        if not counted.height:
            raise NotFound(f"{model} has no prediction from {start.isoformat()} to {end.isoformat()}.")
        chosen = rows.filter(_is_comparable())
        comparable = int(counted["comparable"].sum())
        if comparable > limit:
            chosen = chosen.filter(pl.col("prediction_id").hash(0) < int(limit / comparable * (2**64 - 1)))
        found: list[FeatureParity] = []
        sampled = 0
        with tempfile.TemporaryDirectory(dir=self._settings.folder("jobs"), prefix="parity-") as scratch:
            for version in counted.filter(pl.col("comparable") > 0)["version"]:
                parity, height = self._of_version(model, version, chosen, Path(scratch))
                found += parity
                sampled += height
        features = added(found)
        causes: dict[Cause, int] = {}
        for feature in features:
            for cause, count in feature.causes.items():
                causes[cause] = causes.get(cause, 0) + count
        totals = {
            name: sum(getattr(feature, name) for feature in features)
            for name in ("compared", "exact", "close", "different", "sent")
        }
        return Parity(
            model=model,
            event_from=start,
            event_to=end,
            versions=tuple(counted["version"]),
            rows=int(counted["rows"].sum()),
            sampled=sampled,
            unlogged=int(counted["unlogged"].sum()),
            unfilled=int(counted["unfilled"].sum()),
            **totals,
            causes=causes,
            lag=_lag(chosen, sum(feature.behind for feature in features)),
            features=features,
            recorded_at=utc_now(),
            seconds=round(perf_counter() - began, 2),
        )

    def _window(
        self,
        model: str,
        answered: pl.LazyFrame,
        last: timedelta | None,
        start: datetime | None,
        end: datetime | None,
    ) -> tuple[datetime, datetime]:
        """The window's first and last asked time; without an end, what is newest of what was predicted by now."""
        if end is None:
            now = self._clock.now(model)
            newest = answered.filter(pl.col("asked_at") <= now).select(pl.col("asked_at").max()).collect().item()
            end = now if newest is None else min(now, newest)
        if start is None or last is not None:
            start = end - (last or LAST)
        return start, end

    def _of_version(
        self, model: str, version: int, chosen: pl.LazyFrame, scratch: Path
    ) -> tuple[list[FeatureParity], int]:
        sealed = self._registry.version(model, version)
        views = read_manifest(self._registry.fetch(sealed.bundle)).views
        path = scratch / f"{version}.parquet"
        rows = _logged(chosen.filter(pl.col("version") == version), views).collect().with_row_index(ROW)
        rows.write_parquet(path)
        revision = int(str(sealed.facts["contract_revision"]))
        return self._comparing.compare(model, revision, views, path), rows.height


def _counted(rows: pl.LazyFrame) -> pl.DataFrame:
    """By version: ``rows``, ``unlogged``, ``unfilled``, ``comparable``."""
    is_logged = pl.col("looked_up").is_not_null()
    return (
        rows.group_by("version")
        .agg(
            rows=pl.len(),
            unlogged=(~is_logged).sum(),
            unfilled=(is_logged & ~_is_comparable()).sum(),
            comparable=_is_comparable().sum(),
        )
        .sort("version")
        .collect()
    )


def _is_comparable() -> pl.Expr:
    """Whether it is known what was looked up, and as of when; a row that the caller sent whole needs no time."""
    looked_up = pl.col("looked_up").list.len()
    return (looked_up == 0).fill_null(False) | (looked_up.is_not_null() & pl.col("materialised_through").is_not_null())


def _logged(rows: pl.LazyFrame, views: tuple[FeatureView, ...]) -> pl.LazyFrame:
    """The rows as ``features.parity`` wants them."""
    schema = rows.collect_schema()
    names = [feature.name for view in views for feature in view.features]
    keys = dict.fromkeys(key for view in views for key in view.entity.key)
    return rows.select(
        pl.col("prediction_id").alias(ID),
        pl.col("asked_at").alias(AT),
        pl.col("materialised_through").alias(THROUGH),
        pl.col("looked_up").alias(LOOKED_UP),
        *(_key(key, schema).alias(key) for key in keys),
        *(pl.col(f"x_{name}").alias(LOGGED + name) for name in names),
    )


def _key(name: str, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """An entity's key: an input, or a column of its own. One that was itself looked up was null to the lookup."""
    if f"x_{name}" not in schema:
        return pl.col(f"k_{name}")
    return pl.when(~pl.col("looked_up").list.contains(name)).then(pl.col(f"x_{name}"))


def _lag(chosen: pl.LazyFrame, behind: int) -> Lag | None:
    seconds = (pl.col("asked_at") - pl.col("materialised_through")).dt.total_microseconds() / 1e6
    lag = pl.max_horizontal(seconds, 0.0)
    found = (
        chosen.filter(pl.col("looked_up").list.len() > 0)
        .select(pl.len().alias("rows"), *(lag.quantile(q).alias(f"q{q}") for q in _QUANTILES), lag.max().alias("max"))
        .collect()
        .row(0, named=True)
    )
    if not found["rows"]:
        return None
    p50, p90, p99 = (found[f"q{q}"] for q in _QUANTILES)
    return Lag(found["rows"], p50, p90, p99, found["max"], behind)
