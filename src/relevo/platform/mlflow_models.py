"""Models that MLflow's clients have logged here: from the address that a person types to a version and its files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relevo.errors import Invalid, NotFound, nearest

_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[1-9]\d{0,8})")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[\w.-]+)")
_RUN = re.compile(r"runs:/(?P<run>[0-9a-f]{32})/(?P<path>[^\\]+)")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-f]{32})")
_FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN_ID/PATH or models:/m-MODEL_ID"
_ROOT = "mlflow-artifacts:"


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version in MLflow's registry. ``folder`` holds its files, below the root of all artifacts."""

    name: str
    version: int
    run_id: str
    folder: str
    created_at: datetime
    metrics: dict[str, float]  # as its run logged them; nothing here has measured them


def check_address(uri: str) -> None:
    """Refuse what is no address of a model in MLflow.

    Raises:
        Invalid: With the forms that there are.
    """
    if not any(form.fullmatch(uri) for form in (_VERSION, _ALIAS, _RUN, _LOGGED)):
        raise Invalid(
            f"Expected {_FORMS}, got {uri[:200]!r}.",
            field="uri",
            hint="The model must be in this installation's MLflow: log it there (MLFLOW_TRACKING_URI=.../mlflow).",
        )


def find_version(registry: Any, tracking: Any, uri: str, name: str | None) -> RegisteredVersion:
    """The version that ``uri`` names; a model that has none yet is registered.

    Args:
        registry: MLflow's store of registered models.
        tracking: MLflow's store of runs.
        uri: One of the forms of ``check_address``.
        name: Under which the model of a run is registered.

    Raises:
        Invalid: ``uri`` is none of the forms, or names a run's model and no ``name`` is given.
        NotFound: There is no such model, version, alias or run.
    """
    check_address(uri)
    if (found := _VERSION.fullmatch(uri)) is not None:
        return _described(tracking, registry, _version(registry, found["name"], int(found["version"])))
    if (found := _ALIAS.fullmatch(uri)) is not None:
        return _described(tracking, registry, _of_alias(registry, found["name"], found["alias"]))
    if name is None:
        raise Invalid(f"{uri} names no registered model; say under which name to register it.", field="as", hint=_AS)
    if (found := _RUN.fullmatch(uri)) is not None:
        source, run_id = _source_of_run(tracking, found["run"], found["path"].strip("/"))
    else:
        model = _asked(lambda: tracking.get_logged_model(uri.removeprefix("models:/")), f"There is no model {uri}.")
        source, run_id = model.artifact_location, model.source_run_id
    return _described(tracking, registry, _registered(registry, name, source, run_id))


_AS = "For example: relevo import URI --as churn"


def _version(registry: Any, name: str, version: int) -> Any:
    try:
        return _asked(lambda: registry.get_model_version(name, version), "")
    except NotFound:
        raise _no_version(registry, name, f"version {version}") from None


def _of_alias(registry: Any, name: str, alias: str) -> Any:
    try:
        return _asked(lambda: registry.get_model_version_by_alias(name, alias), "")
    except NotFound:
        raise _no_version(registry, name, f"alias {alias!r}") from None


def _no_version(registry: Any, name: str, what: str) -> NotFound:
    names = [model.name for model in registry.search_registered_models(max_results=1000)]
    if name in names:
        versions = registry.search_model_versions(f"name='{name}'", max_results=1000)
        numbers = ", ".join(str(number) for number in sorted((int(one.version) for one in versions), reverse=True)[:5])
        return NotFound(f"The registered model {name!r} has no {what}; its newest versions are: {numbers or 'none'}.")
    near = nearest(name, names)
    hint = "Register it in this installation's MLflow: MLFLOW_TRACKING_URI=.../mlflow, registered_model_name=NAME."
    return NotFound(
        f"There is no registered model {name!r} in MLflow here" + (f"; did you mean {near!r}?" if near else "."),
        hint=hint,
    )


def _source_of_run(tracking: Any, run_id: str, path: str) -> tuple[str, str]:
    """The folder of a run's model: that of a logged model of the name, or (of older clients) among its artifacts."""
    run = _asked(lambda: tracking.get_run(run_id), f"There is no run {run_id} in MLflow here.")
    quoted = path.replace("'", "")  # MLflow's filters have no way to write a quote
    models = tracking.search_logged_models([run.info.experiment_id], filter_string=f"name = '{quoted}'")
    of_run = [model for model in models if model.source_run_id == run_id]
    if of_run:
        newest = max(of_run, key=lambda model: model.creation_timestamp)
        return str(newest.artifact_location), run_id
    return f"{run.info.artifact_uri.rstrip('/')}/{path}", run_id


def _registered(registry: Any, name: str, source: str, run_id: str | None) -> Any:
    """The version made of these files; registered when there is none."""
    if not [model for model in registry.search_registered_models(f"name='{name}'") if model.name == name]:
        registry.create_registered_model(name)
    versions = registry.search_model_versions(f"name='{name}'", max_results=1000)
    known = [one for one in versions if registry.get_model_version_download_uri(name, one.version) == source]
    return known[0] if known else registry.create_model_version(name, source, run_id)


def _described(tracking: Any, registry: Any, version: Any) -> RegisteredVersion:
    place = str(registry.get_model_version_download_uri(version.name, version.version))
    if not place.startswith(_ROOT):
        raise Invalid(f"The files of {version.name}/{version.version} are not here: they are in {place}.", field="uri")
    return RegisteredVersion(
        name=str(version.name),
        version=int(version.version),
        run_id=str(version.run_id or ""),
        folder=place.removeprefix(_ROOT).strip("/"),
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        metrics=_metrics(tracking, version.run_id),
    )


def _metrics(tracking: Any, run_id: str | None) -> dict[str, float]:
    """What the run logged that is a number; nothing of a run that is gone: a version outlives it."""
    try:
        run = _asked(lambda: tracking.get_run(run_id), "") if run_id else None
    except NotFound:
        run = None
    logged = {} if run is None else run.data.metrics
    return {str(name): float(value) for name, value in logged.items() if math.isfinite(value)}


def _asked(question: Callable[[], Any], message: str) -> Any:
    """What MLflow answers.

    Raises:
        NotFound: With the message, when it knows no such thing.
    """
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(message) from None
        if error.error_code == "INVALID_PARAMETER_VALUE":  # how it says that there is no such alias
            raise NotFound(message or str(error.message)) from None
        raise
