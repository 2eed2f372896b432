"""The original model as a folder in MLflow's format: written in the training child, read in the isolated child.

The bundle has a folder of its own, since the one in MLflow can be overwritten there, and does not hold the team's code.
"""

from __future__ import annotations

import importlib
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

#: The folder's place in a bundle.
FOLDER = "model"

#: Flavors of MLflow that give the library's own model; a pyfunc of it would answer labels, or in a shape of its own.
_LIBRARIES = ("lightgbm", "xgboost", "catboost", "statsmodels")
_PICKLE = "model.pkl"
_CODE = "code"
_LEFT_OUT = {"__pycache__", ".git", ".venv"}


def model_files(model: Any, package: Path | None = None) -> dict[str, bytes]:
    """The files of the folder by their path in the bundle.

    Args:
        model: The fitted model; it is pickled.
        package: Import root of the team's code, which goes along; classes of it are pickled by name.
    """
    import cloudpickle  # type: ignore[import-untyped]
    import yaml

    code = {} if package is None else _code(package)
    where = _CODE if code else None
    flavors = {
        "python_function": {
            "loader_module": "mlflow.sklearn",
            "model_path": _PICKLE,
            "predict_fn": "predict",
            "python_version": platform.python_version(),
            "code": where,
        },
        # MLflow's flavor of whatever has fit and predict: a pickle, with the version of scikit-learn beside it.
        "sklearn": {
            "pickled_model": _PICKLE,
            "serialization_format": "cloudpickle",
            "sklearn_version": metadata.version("scikit-learn"),
            "code": where,
        },
    }
    return {
        f"{FOLDER}/MLmodel": yaml.safe_dump({"flavors": flavors}).encode(),
        f"{FOLDER}/{_PICKLE}": cloudpickle.dumps(model),
        **{f"{FOLDER}/{_CODE}/{path}": content for path, content in code.items()},
    }


def load_model(folder: Path) -> Any:
    """The model of an MLflow model folder, in its own flavor, so that ``predict_proba`` is there.

    Only a child process may call this: it unpickles. A pickled scikit-learn model is read without importing MLflow,
    which takes 4 s and 150 MB.
    """
    import yaml

    flavors = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]
    if "sklearn" in flavors:
        sklearn = flavors["sklearn"]
        if sklearn.get("serialization_format") in ("cloudpickle", "pickle"):
            return _unpickle(folder, sklearn)
        import mlflow.sklearn

        return mlflow.sklearn.load_model(str(folder))
    for flavor in _LIBRARIES:
        if flavor in flavors:
            return importlib.import_module(f"mlflow.{flavor}").load_model(str(folder))
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))


def _unpickle(folder: Path, flavor: dict[str, Any]) -> Any:
    import cloudpickle

    if flavor.get("code"):
        sys.path.insert(0, str(folder / flavor["code"]))
    with (folder / flavor["pickled_model"]).open("rb") as file:
        return cloudpickle.load(file)


def _code(package: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(package.rglob("*")) if path.is_file() and not path.is_symlink())
    inside = ((path.relative_to(package), path) for path in paths)
    return {name.as_posix(): path.read_bytes() for name, path in inside if not _LEFT_OUT.intersection(name.parts)}
