"""The prediction log as the control plane reads it: predictions of a window of event time with their labels."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from relevo.errors import Unavailable
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.predictions import store
from relevo.predictions.backlog import closed_segments, segments
from relevo.predictions.columns import LABELS, PREDICTIONS, merged
from relevo.predictions.ids import UNSAMPLED_LETTERS, UNSAMPLED_PLACE
from relevo.predictions.progress import read_progress
from relevo.predictions.segments import ask_rotation, holder
from relevo.predictions.tables import scan, table_path

_POLL_SECONDS = 0.01


class PredictionLog:
    """Reads predictions and labels of this home. Thread-safe; its calls block.

    Args:
        settings: Home folder and label database.
    """

    def __init__(self, settings: Settings) -> None:
        self._root = settings.root
        self._log = settings.folder("log")
        self._state = State(settings.database("labels"))
        with self._state.transaction() as tx:
            store.create_tables(tx)

    def window(
        self, endpoint: str, start: datetime, end: datetime, *, known_by: datetime | None = None
    ) -> pl.LazyFrame:
        """Predictions of ``endpoint`` asked in ``[start, end)`` of event time, each with its newest label, unordered.

        The columns are those of `columns.PREDICTIONS`, ``x_<input>`` and ``k_<key>`` of every version, and of the label
        ``label`` (its value), ``outcome`` (``known``, ``none``, or null without a label) and ``known_at``. Failed
        requests are rows with ``status`` ``failed``. An endpoint without predictions gives an empty frame.

        Args:
            endpoint: Its name.
            start: First event time, aware.
            end: Event time after the last one, aware.
            known_by: Take no label, and no correction, that was known later than this event time.
        """
        asked = pl.col("asked_at")
        rows = self._predictions(endpoint).filter(asked >= start, asked < end)
        return rows.join(self._newest_labels(endpoint, known_by), on="prediction_id", how="left")

    def shadows(self, endpoint: str, version: int) -> pl.LazyFrame:
        """What ``version`` answered as a shadow, each row beside what its caller got, with the newest label, unordered.

        ``shadow_of`` is the id of the caller's prediction; ``given``, ``given_version``, ``given_probabilities`` are
        what that holds, and null when the log holds no such row. The label is that of the caller's prediction.
        """
        shadowed = self._logged(endpoint).filter(pl.col("shadow_of").is_not_null(), pl.col("version") == version)
        given = self._predictions(endpoint).select(
            shadow_of="prediction_id",
            given_version="version",
            given="prediction",
            given_probabilities="probabilities",
        )
        labels = self._newest_labels(endpoint, None).rename({"prediction_id": "shadow_of"})
        return shadowed.join(given, on="shadow_of", how="left").join(labels, on="shadow_of", how="left")

    def rows(self, endpoint: str) -> pl.LazyFrame:
        """Every predicted row of ``endpoint``, as in ``window`` but without labels, unordered."""
        return self._predictions(endpoint)

    def counts(self, endpoint: str) -> dict[str, int]:
        """How many predictions and labels of ``endpoint`` the tables hold.

        ``predictions_logged`` and ``rows_failed`` are rows; ``labels`` are predictions with a label, of which
        ``labels_joined`` were logged, ``labels_unsampled`` were left out by the sample of the log, and ``orphans``
        should have been logged and were not (or not yet: `flush` first). ``duplicates``, ``conflicts`` and ``unknown``
        are labels that were refused or changed nothing.
        """
        is_ok = pl.col("status") == "ok"
        rows = self._predictions(endpoint)
        sums = rows.select(logged=is_ok.sum(), failed=(~is_ok).sum())
        labelled = self._newest_labels(endpoint, None).select("prediction_id")
        logged = rows.select("prediction_id")
        joined = labelled.join(logged, on="prediction_id", how="semi")
        without = labelled.join(logged, on="prediction_id", how="anti")
        letter = pl.col("prediction_id").str.slice(UNSAMPLED_PLACE, 1)
        counted, joined_labels, missing = pl.collect_all(
            [
                sums,
                joined.select(pl.len()),
                without.select(pl.len(), unsampled=letter.is_in(sorted(UNSAMPLED_LETTERS)).sum()),
            ]
        )
        with self._state.read() as tx:
            refused = store.counted(tx, endpoint)
        labels_joined, unsampled = int(joined_labels.item()), int(missing["unsampled"][0])
        labels = labels_joined + int(missing["len"][0])
        return {
            "predictions_logged": int(counted["logged"][0]),
            "rows_failed": int(counted["failed"][0]),
            "labels": labels,
            "labels_joined": labels_joined,
            "labels_unsampled": unsampled,
            "orphans": labels - labels_joined - unsampled,
            **refused,
        }

    def flush(self, timeout_seconds: float) -> None:
        """Return when every prediction and label that was acknowledged before the call is in the tables.

        Raises:
            Unavailable: It took longer; the message says what was waited for.
        """
        deadline = time.monotonic() + timeout_seconds
        before = set(segments(self._log))
        marked = ask_rotation(self._log)
        with self._state.read() as tx:
            last_label = store.last_id(tx)
        while late := self._not_rotated(marked):
            self._wait(deadline, f"workers {', '.join(late)} to close their segments")
        before |= {segment.name for segment in closed_segments(self._log)}
        while left := before & set(segments(self._log)):
            self._wait(deadline, f"{_plural(len(left), 'segment')} to be collected")
        while (missing := last_label - self._labels_through()) > 0:
            self._wait(deadline, f"{_plural(missing, 'label')} to be collected")

    def close(self) -> None:
        """Close the connections."""
        self._state.close()

    def _predictions(self, endpoint: str) -> pl.LazyFrame:
        """What callers were answered, without what shadows made of the same requests."""
        return self._logged(endpoint).filter(pl.col("shadow_of").is_null())

    def _logged(self, endpoint: str) -> pl.LazyFrame:
        found = scan(table_path(self._root, "predictions", endpoint))
        if found is None:
            return pl.LazyFrame(schema=PREDICTIONS)
        there = found.collect_schema()  # a table that an earlier release began has not every column
        lacking = [pl.lit(None, kind).alias(name) for name, kind in PREDICTIONS.items() if name not in there]
        return merged(found.with_columns(lacking))

    def _newest_labels(self, endpoint: str, known_by: datetime | None) -> pl.LazyFrame:
        """One row a labelled prediction: ``prediction_id``, ``label``, ``outcome``, ``known_at``."""
        found = scan(table_path(self._root, "labels", endpoint))
        labels = pl.LazyFrame(schema=LABELS) if found is None else found
        if known_by is not None:
            labels = labels.filter(pl.col("known_at") <= known_by)
        newest = labels.filter(pl.col("revision") == pl.col("revision").max().over("prediction_id"))
        return newest.select("prediction_id", pl.col("value").alias("label"), "outcome", "known_at")

    def _not_rotated(self, marked: int) -> list[str]:
        """Live workers that have not followed the rotation."""
        late = []
        for folder in _worker_folders(self._log):
            writer = holder(folder)
            if writer is not None and writer.rotated_ns < marked:
                late.append(folder.name)
        return late

    def _labels_through(self) -> int:
        progress = read_progress(self._log)
        return 0 if progress is None else progress.labels_through

    def _wait(self, deadline: float, what: str) -> None:
        if time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            return
        progress = read_progress(self._log)
        if progress is None:
            collector = "no collector has worked in this home"
        else:
            age_seconds = (datetime.now(UTC) - progress.at).total_seconds()
            problem = f"; its last error: {progress.last_error}" if progress.last_error else ""
            collector = f"the collector was last seen {age_seconds:.1f} s ago{problem}"
        raise Unavailable(f"Waited too long for {what}; {collector}.", hint="Is `relevo up` running?")


def _worker_folders(log: Path) -> list[Path]:
    return sorted(lock.parent for lock in log.glob("*/lock"))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
