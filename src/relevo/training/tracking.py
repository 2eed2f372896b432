"""Writes a run, its model and its version to MLflow, as any MLflow client would. Runs in child processes only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from relevo.errors import NotFound, Unavailable
from relevo.training import environment, mlflow_import
from relevo.training.folder import RunFolder
from relevo.training.model import Run
from relevo.training.results import Result

#: By this tag a run is found again when the step is repeated.
WORKFLOW_TAG = "relevo.workflow_id"

_SAMPLE_ROWS = 20


def track(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Write a run with its model and version; the same workflow id again finds them.

    The token for the server comes from the environment.

    Returns:
        ``{"run": MLflow's run id, "version": the number of the registered version}``.

    Raises:
        Unavailable: The server does not answer, or fails.
    """
    if run.tracking_url is None:
        raise NotFound(f"Run {run.id} names no tracking server, so its model can get no version.")
    result = Result(run, folder)
    mlflow = mlflow_import.imported()
    mlflow.set_tracking_uri(run.tracking_url)
    client = mlflow.MlflowClient(run.tracking_url)
    try:
        run_id = _run(client, run)
        number = _version(client, run, run_id)
        if number is None:
            _log_facts(mlflow, client, run, result, run_id)
            with mlflow_import.quiet(), mlflow.start_run(run_id=run_id):
                flavor, arguments = _model_arguments(mlflow, run, result)
                flavor.log_model(name="model", registered_model_name=run.model, **arguments)
            number = _version(client, run, run_id)
        client.set_terminated(run_id)
    except mlflow.exceptions.MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise Unavailable(f"MLflow at {run.tracking_url} failed: {error.message}") from error
        raise
    if number is None:
        raise Unavailable(
            f"MLflow at {run.tracking_url} took run {run_id}, and shows no version of {run.model} for it."
        )
    return {"run": run_id, "version": number}


def save_original(run: Run, result: Result, path: Path) -> None:
    """Write the estimator as an MLflow model folder, which holds the team's package too."""
    mlflow = mlflow_import.imported()
    with mlflow_import.quiet():
        flavor, arguments = _model_arguments(mlflow, run, result)
        flavor.save_model(path=str(path), **arguments)


def _run(client: Any, run: Run) -> str:
    experiment = client.get_experiment_by_name(run.model)
    experiment_id = experiment.experiment_id if experiment is not None else client.create_experiment(run.model)
    tag = run.workflow_id.replace("'", "")  # MLflow's filters have no way to write a quote
    runs = client.search_runs([experiment_id], f"tags.`{WORKFLOW_TAG}` = '{tag}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    return str(client.create_run(experiment_id, tags={WORKFLOW_TAG: tag}, run_name=tag).info.run_id)


def _version(client: Any, run: Run, run_id: str) -> int | None:
    versions = client.search_model_versions(f"name='{run.model}' and run_id='{run_id}'")
    return min((int(version.version) for version in versions), default=None)


def _log_facts(mlflow: Any, client: Any, run: Run, result: Result, run_id: str) -> None:
    found = result.evaluation
    metrics = found.metrics | {f"baseline_{name}": value for name, value in found.baseline_metrics.items()}
    metrics |= {f"champion_{name}": value for name, value in found.champion_metrics.items()}
    client.log_batch(
        run_id,
        metrics=[mlflow.entities.Metric(name, value, 0, 0) for name, value in metrics.items()],
        params=[mlflow.entities.Param(name, str(value)) for name, value in result.params.items()],
        tags=[mlflow.entities.RunTag(name, value) for name, value in _tags(run, result).items()],
    )


def _tags(run: Run, result: Result) -> dict[str, str]:
    lock = None if run.lock is None else Path(run.lock)
    datasets = {f"relevo.dataset.{name}": str(loaded["version"]) for name, loaded in result.sources.items()}
    commit = {"mlflow.source.git.commit": run.git_commit} if run.git_commit else {}
    return {
        "relevo.as_of": run.as_of.isoformat(),
        "relevo.contract_revision": str(run.revision),
        "relevo.snapshot": run.snapshot,
        "relevo.environment": environment.environment_digest(environment.environment_text(lock)),
        "relevo.training_set": result.built.digest,
        **commit,
        **datasets,
    }


def _model_arguments(mlflow: Any, run: Run, result: Result) -> tuple[Any, dict[str, Any]]:
    """The flavor to write the estimator in, and what its ``save_model`` and ``log_model`` take alike."""
    sample = result.frame(result.held_out.head(_SAMPLE_ROWS))
    texts = [name for name in sample.columns if isinstance(sample[name].dtype, pd.CategoricalDtype)]
    answers = result.answers[:_SAMPLE_ROWS]
    arguments = {
        "signature": mlflow.models.infer_signature(sample.astype(dict.fromkeys(texts, object)), answers),
        # Given, since MLflow would else start a process that loads the model to see what it imports.
        "pip_requirements": environment.requirements(None if run.lock is None else Path(run.lock)),
        "code_paths": [str(Path(run.package) / run.contract.package)],
    }
    model = result.model
    if hasattr(model, "get_params"):
        return mlflow.sklearn, {"sk_model": model, "serialization_format": "cloudpickle", **arguments}

    class Wrapped(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return (model.predict_proba if hasattr(model, "predict_proba") else model.predict)(model_input)

    return mlflow.pyfunc, {"python_model": Wrapped(), **arguments}
