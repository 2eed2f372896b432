"""The child process of a training run: ``python -m relevo.training.child``.

Each function is one step. It reads what earlier steps left in the run's folder, writes its own findings there, and
gives them as small JSON; so every step can run in a fresh child, and doing one again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relevo.platform.child import progress, serve
from relevo.platform.encoding import parse, to_json
from relevo.training import mlflow_import, policy
from relevo.training.folder import RunFolder
from relevo.training.model import Run

Json = dict[str, Any]


def load_sources(run: str, last: Mapping[str, Json] | None = None) -> Json:
    """Each source as it was known at ``as_of``, checked and kept as a version: ``{name: LoadedDataset}``.

    Args:
        run: Folder of the run.
        last: The last recorded ``DatasetVersion`` of each source that has one.
    """
    from relevo.datasets import child as datasets

    folder, asked = _open(run)
    until = asked.as_of.isoformat()
    loaded = {}
    for number, source in enumerate(asked.contract.sources):
        progress(f"loading {source.name}", number / len(asked.contract.sources))
        loaded[source.name] = datasets.load(
            to_json(source),
            asked.package,
            until,
            asked.tables,
            asked.snapshot,
            last=(last or {}).get(source.name),
            reads=policy.columns_read(asked.contract, asked.views, source),
        )
    return folder.write("sources", loaded)


def build(run: str) -> Json:
    """The rows of the run as known when asked, split into fitted and held out: a ``Built``."""
    from relevo.training import evaluation, rows

    folder, asked = _open(run)
    progress("building the training set")
    versions = {name: int(loaded["version"]) for name, loaded in folder.read("sources").items()}
    champion = _champion(asked)
    if champion is not None and not evaluation.needs_own_inputs(champion, asked):
        champion = None
    try:
        built = rows.build(asked, versions, champion, folder.rows)
    except Exception:
        if champion is None:
            raise
        # What the champion looked up may be gone from the contract; then it cannot be compared, and evaluate says so.
        built = rows.build(asked, versions, None, folder.rows)
    return folder.write("built", built)


def rebuild(run: str, pinned: dict[str, Json], digest: str) -> Json:
    """The rows of a sealed version made again from its pinned datasets: ``digest``, ``rows``, and ``changed``.

    ``changed`` names the datasets whose content is not the pinned one; it is looked for only when the digest is not
    the one expected.
    """
    from relevo.training import rows

    folder, asked = _open(run)
    progress("building the training set again")
    built = rows.build(asked, {name: int(one["version"]) for name, one in pinned.items()}, None, folder.rows)
    changed = [] if built.digest == digest else rows.changed_datasets(asked, pinned)
    return {"digest": built.digest, "rows": built.rows, "changed": changed}


def fit(run: str) -> Json:
    """The team's function called on the fitted rows; the estimator stays in the run's folder."""
    import polars as pl

    from relevo.training import fitting, rows

    folder, asked = _open(run)
    built = parse(rows.Built, folder.read("built"))
    fitted = pl.read_parquet(folder.rows).filter(~pl.col(rows.IS_HELD_OUT))
    progress(f"fitting on {fitted.height:,} rows")
    training = fitting.training_set(asked, built.signature, fitted)
    model = fitting.fit(asked, built.signature, training)
    fitting.save(model, folder.model)
    return folder.write("fitted", {"rows": fitted.height, "estimator": type(model).__name__, "params": training.params})


def evaluate(run: str) -> Json:
    """Candidate, champion and baseline on the same held-out rows: an ``Evaluation``."""
    from relevo.training import evaluation

    folder, asked = _open(run)
    progress("evaluating on the held-out rows")
    return folder.write("evaluation", evaluation.evaluate(asked, folder, _champion(asked)))


def track(run: str) -> Json:
    """Run, model and version in MLflow: ``{"run", "version"}``."""
    from relevo.training import tracking

    folder, asked = _open(run)
    progress("writing the run to MLflow")
    return folder.write("tracked", tracking.track(asked, folder))


def pack(run: str) -> Json:
    """The candidate as a bundle folder, compiled if it agrees with the original; its facts."""
    from relevo.training import packing

    folder, asked = _open(run)
    progress("packing the candidate")
    return folder.write("packed", packing.pack(asked, folder))


def _open(run: str) -> tuple[RunFolder, Run]:
    folder = RunFolder(run)
    asked = folder.run()
    if asked.tracking_url is not None:
        mlflow_import.import_early()
    return folder, asked


def _champion(run: Run) -> Any:
    if run.champion is None:
        return None
    from relevo.registry.bundles import read_manifest

    return read_manifest(Path(run.champion.folder))


#: By name, what a job may call.
FUNCTIONS: dict[str, Callable[..., Json]] = {
    "load_sources": load_sources,
    "build": build,
    "rebuild": rebuild,
    "fit": fit,
    "evaluate": evaluate,
    "track": track,
    "pack": pack,
}

if __name__ == "__main__":
    serve(FUNCTIONS)
