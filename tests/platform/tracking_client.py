"""What a team's own script does against ``/mlflow`` with a plain MLflow client; prints what it saw as JSON.

``MLFLOW_TRACKING_URI`` and ``MLFLOW_TRACKING_TOKEN`` say where and who.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

warnings.simplefilter("ignore")

import mlflow  # noqa: E402
import mlflow.sklearn  # noqa: E402
import numpy as np  # noqa: E402
from mlflow.entities import Metric  # noqa: E402
from mlflow.tracking import MlflowClient  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

seen: dict[str, Any] = {}
client = MlflowClient()


def attempt(name: str, action: Callable[[], object]) -> None:
    try:
        action()
        seen[name] = "done"
    except Exception as error:
        seen[name] = str(error)


rng = np.random.default_rng(1)
inputs = rng.normal(size=(200, 3))
labels = (inputs[:, 0] > 0).astype(int)

mlflow.set_experiment("flights")
mlflow.sklearn.autolog(log_datasets=False)
with mlflow.start_run() as run:
    model = LogisticRegression(C=0.5).fit(inputs, labels)
    mlflow.log_param("own", "value")
    mlflow.log_metric("own_metric", 0.25)
    with TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text("<script>alert(1)</script>")
        mlflow.log_artifact(str(page))
    logged = mlflow.sklearn.log_model(model, name="model", skops_trusted_types=[])
mlflow.sklearn.autolog(disable=True)

found = mlflow.get_run(run.info.run_id)
seen["run"] = run.info.run_id
seen["experiment"] = run.info.experiment_id
seen["params"] = {name: found.data.params[name] for name in ("own", "C")}
seen["metrics"] = sorted(found.data.metrics)
seen["artifacts"] = sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id))
seen["artifact_location"] = client.get_logged_model(logged.model_id).artifact_location

for name in ("flight-delay", "free"):
    mlflow.register_model(f"models:/{logged.model_id}", name)
loaded = mlflow.sklearn.load_model("models:/flight-delay/1")
seen["agrees"] = bool((loaded.predict_proba(inputs) == model.predict_proba(inputs)).all())

for name in ("flight-delay", "free"):
    attempt(f"{name} alias", lambda name=name: client.set_registered_model_alias(name, "champion", "1"))
    attempt(f"{name} delete alias", lambda name=name: client.delete_registered_model_alias(name, "champion"))
    attempt(f"{name} stage", lambda name=name: client.transition_model_version_stage(name, "1", "Production"))
    attempt(f"{name} describe", lambda name=name: client.update_model_version(name, "1", "a description"))
    attempt(f"{name} rename", lambda name=name: client.rename_registered_model(name, f"{name}-2"))
    attempt(f"{name} delete version", lambda name=name: client.delete_model_version(f"{name}-2", "1"))
attempt("flight-delay delete version", lambda: client.delete_model_version("flight-delay", "1"))
attempt("flight-delay delete", lambda: client.delete_registered_model("flight-delay"))
attempt("free-2 takes its name", lambda: client.rename_registered_model("free-2", "flight-delay"))
attempt("free-2 delete", lambda: client.delete_registered_model("free-2"))
attempt("experiment elsewhere", lambda: client.create_experiment("elsewhere", artifact_location="file:///etc"))

batches = 60
began = time.monotonic()
for step in range(batches):
    client.log_batch(run.info.run_id, metrics=[Metric("loss", 1.0 / (step + 1), int(time.time() * 1000), step)])
seen["log_batch_rate"] = batches / (time.monotonic() - began)
print("\n" + json.dumps(seen))
