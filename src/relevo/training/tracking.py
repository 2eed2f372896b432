"""Writes a run, its model and its version to MLflow, as any MLflow client would. Runs in child processes only."""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from relevo.errors import Unavailable

#: By this tag a run is found again when the step is repeated.
WORKFLOW_TAG = "relevo.workflow_id"

_importing: threading.Thread | None = None


def import_early() -> None:
    """Import MLflow in the background: it takes 4 s, in which data can be loaded."""
    global _importing
    if _importing is None:
        _importing = threading.Thread(target=_import, name="import-mlflow", daemon=True)
        _importing.start()


def track(
    url: str,
    *,
    model_name: str,
    workflow_id: str,
    model: Any,
    sample: pd.DataFrame,
    answers: Any,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    requirements: Sequence[str],
) -> dict[str, Any]:
    """Write everything once: the same workflow id again finds its run and version.

    Args:
        url: Of the tracking server; the token comes from the environment.
        model_name: Of the registered model and of the experiment.
        workflow_id: What the run belongs to.
        model: The fitted estimator.
        sample: Some rows of its inputs, for the signature.
        answers: What it answers for them.
        params: Of the fit.
        metrics: Of the evaluation.
        tags: Git commit, dataset versions, environment digest and so on.
        requirements: Lines of the environment's lock.

    Returns:
        ``{"run": MLflow's run id, "version": the number of the registered version}``.

    Raises:
        Unavailable: The server does not answer.
    """
    _wait_for_import()
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(url)
    client = mlflow.MlflowClient(url)
    try:
        run_id = _run(client, model_name, workflow_id)
        found = _version(client, model_name, run_id)
        if found is None:
            client.log_batch(
                run_id,
                metrics=[mlflow.entities.Metric(name, value, 0, 0) for name, value in metrics.items()],
                params=[mlflow.entities.Param(name, str(value)) for name, value in params.items()],
                tags=[mlflow.entities.RunTag(name, value) for name, value in tags.items()],
            )
            with _quiet(), mlflow.start_run(run_id=run_id):
                _log_model(mlflow, model, model_name, sample, answers, requirements)
            found = _version(client, model_name, run_id)
        client.set_terminated(run_id)
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise Unavailable(f"MLflow at {url} failed: {error.message}") from error
        raise
    if found is None:
        raise Unavailable(
            f"MLflow at {url} took the model of run {run_id}, and shows no version of {model_name} for it."
        )
    return {"run": run_id, "version": found}


def _import() -> None:
    with _quiet():
        for name in ("mlflow", "mlflow.sklearn", "mlflow.models"):
            importlib.import_module(name)


def _wait_for_import() -> None:
    import_early()
    assert _importing is not None
    _importing.join()


def _run(client: Any, model_name: str, workflow_id: str) -> str:
    experiment = client.get_experiment_by_name(model_name)
    experiment_id = experiment.experiment_id if experiment is not None else client.create_experiment(model_name)
    quoted = workflow_id.replace("'", "")
    runs = client.search_runs([experiment_id], f"tags.`{WORKFLOW_TAG}` = '{quoted}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    return str(client.create_run(experiment_id, tags={WORKFLOW_TAG: quoted}, run_name=quoted).info.run_id)


def _version(client: Any, model_name: str, run_id: str) -> int | None:
    versions = client.search_model_versions(f"name='{model_name}' and run_id='{run_id}'")
    return min((int(version.version) for version in versions), default=None)


def _log_model(
    mlflow: Any, model: Any, model_name: str, sample: pd.DataFrame, answers: Any, requirements: Sequence[str]
) -> None:
    plain = sample.astype(
        {name: object for name in sample.columns if isinstance(sample[name].dtype, pd.CategoricalDtype)}
    )
    shared = {
        "name": "model",
        "signature": mlflow.models.infer_signature(plain, answers),
        "registered_model_name": model_name,
        # Given, since MLflow would else start a process that loads the model to see what it imports.
        "pip_requirements": list(requirements),
    }
    if hasattr(model, "get_params"):
        mlflow.sklearn.log_model(model, serialization_format="cloudpickle", **shared)
        return

    class Wrapped(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model.predict(model_input)

    mlflow.pyfunc.log_model(python_model=Wrapped(), **shared)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
