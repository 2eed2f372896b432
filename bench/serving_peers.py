"""The servers of models that ``serving.py`` measures beside ours: how each is started, asked, and understood."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from peers import python_of
from served_models import Rows, Served

SERVERS = Path(__file__).parent / "servers"


@dataclass(frozen=True)
class Peer:
    """One server in one setting; ``batch`` is the most that one call of the model gets, 1 when batching is off.

    Bodies and answers here are those of the servers whose users write the call themselves: rows by position.
    """

    name: str
    environment: str
    batch: int = 1
    ready: str = "/health"
    packages: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.name}, batches" if self.batch > 1 else self.name

    @property
    def python(self) -> Path:
        return python_of(self.environment)

    def path(self) -> str:
        """Where predictions are asked."""
        return "/predict"

    def variables(self, served: Served, folder: Path) -> dict[str, str]:
        """Of the server's environment."""
        return {"MODEL": str(served.folder), "BATCH": str(self.batch), "PYTHONPATH": str(SERVERS)}

    def command(self, served: Served, folder: Path) -> list[str]:
        """Starts it; ``folder`` is empty and its own."""
        raise NotImplementedError

    def body(self, served: Served, rows: Rows) -> bytes:
        return msgspec.json.encode({"rows": rows})

    def answers(self, content: bytes) -> list[float]:
        return json.loads(content)["predictions"]  # type: ignore[no-any-return]


class FastApi(Peer):
    def command(self, served: Served, folder: Path) -> list[str]:
        return [*_uvicorn(self.python), "--factory", "fastapi_server:application"]


class LitServe(Peer):
    def command(self, served: Served, folder: Path) -> list[str]:
        return [str(self.python), str(SERVERS / "litserve_server.py"), "{port}"]


class BentoMl(Peer):
    def variables(self, served: Served, folder: Path) -> dict[str, str]:
        return super().variables(served, folder) | {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}

    def command(self, served: Served, folder: Path) -> list[str]:
        words = ("serve", "bentoml_server:Service", "--working-dir", str(SERVERS), "--host", "127.0.0.1")
        return [str(self.python), "-m", "bentoml", *words, "--port", "{port}"]

    def answers(self, content: bytes) -> list[float]:
        return json.loads(content)  # type: ignore[no-any-return]


class MlFlow(Peer):
    """Without signature; an array for LightGBM, which MLflow takes as it is."""

    def path(self) -> str:
        return "/invocations"

    def variables(self, served: Served, folder: Path) -> dict[str, str]:
        return super().variables(served, folder) | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}

    def command(self, served: Served, folder: Path) -> list[str]:
        subprocess.run(
            [str(self.python), "-W", "ignore", str(SERVERS / "mlflow_save.py"), str(folder / "model")],
            env=os.environ | self.variables(served, folder),
            cwd=folder,  # beside a uv.lock, MLflow would take the project there for the model's own
            check=True,
            capture_output=True,
        )
        # What `mlflow models serve` starts, without its access log.
        return [
            *("/usr/bin/env", f"__pyfunc_model_path__={folder / 'model'}"),
            *(*_uvicorn(self.python), "mlflow.pyfunc.scoring_server.app:app"),
        ]

    def body(self, served: Served, rows: Rows) -> bytes:
        if served.texts:
            return msgspec.json.encode({"dataframe_split": {"columns": served.columns, "data": rows}})
        return msgspec.json.encode({"inputs": rows})

    def answers(self, content: bytes) -> list[float]:
        return [each[1] if isinstance(each, list) else each for each in json.loads(content)["predictions"]]


class MlServer(Peer):
    """Its own runtimes, in its own process: no second one for inference on one core. One tensor for LightGBM."""

    def path(self) -> str:
        return "/v2/models/model/infer"

    def command(self, served: Served, folder: Path) -> list[str]:
        is_booster = not served.texts
        uri = served.folder / ("booster.txt" if is_booster else "model.joblib")
        model = {
            "name": "model",
            "implementation": "mlserver_lightgbm.LightGBMModel" if is_booster else "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(uri)},
        }
        if self.batch > 1:
            model |= {"max_batch_size": self.batch, "max_batch_time": 0.005 if is_booster else 0.02}
        server = {
            "host": "127.0.0.1",
            "parallel_workers": 0,
            "debug": False,
            "gzip_enabled": False,
            "metrics_endpoint": None,
        }
        (folder / "model-settings.json").write_text(json.dumps(model))
        (folder / "settings.json").write_text(json.dumps(server))
        ports = ("MLSERVER_HTTP_PORT={port}", "MLSERVER_GRPC_PORT=0")
        return ["/usr/bin/env", *ports, str(self.python.parent / "mlserver"), "start", str(folder)]

    def body(self, served: Served, rows: Rows) -> bytes:
        if not served.texts:
            flat = [value for row in rows for value in row]
            tensor = {"name": "rows", "datatype": "FP64", "shape": [len(rows), len(served.columns)], "data": flat}
            return msgspec.json.encode({"inputs": [tensor]})
        columns = zip(served.columns, zip(*rows, strict=True), strict=True)
        return msgspec.json.encode(
            {
                "parameters": {"content_type": "pd"},
                "inputs": [_column(name, list(values), name in served.texts) for name, values in columns],
                "outputs": [{"name": "predict_proba"}],
            }
        )

    def answers(self, content: bytes) -> list[float]:
        output = json.loads(content)["outputs"][0]
        return output["data"][1::2] if output["name"] == "predict_proba" else output["data"]  # type: ignore[no-any-return]


def _column(name: str, values: list[Any], is_text: bool) -> dict[str, Any]:
    kind = {"datatype": "BYTES", "parameters": {"content_type": "str"}} if is_text else {"datatype": "FP64"}
    return {"name": name, "shape": [len(values), 1], "data": values, **kind}


def _uvicorn(python: Path) -> list[str]:
    words = ("--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop", "--http", "httptools")
    return [str(python), "-m", "uvicorn", *words, "--no-access-log", "--log-level", "warning"]


PEERS = [
    MlFlow("MLflow", "mlflow", packages=("mlflow",)),
    BentoMl("BentoML", "bentoml", ready="/readyz", packages=("bentoml",)),
    BentoMl("BentoML", "bentoml", batch=1_000, ready="/readyz"),
    MlServer("MLServer", "mlserver", ready="/v2/models/model/ready", packages=("mlserver",)),
    MlServer("MLServer", "mlserver", batch=16, ready="/v2/models/model/ready"),
    LitServe("LitServe", "litserve", packages=("litserve",)),
    LitServe("LitServe", "litserve", batch=16),
    FastApi("FastAPI + pandas", "fastapi", packages=("fastapi", "uvicorn")),
]
