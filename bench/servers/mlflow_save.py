"""The model of the folder ``MODEL`` as a model of MLflow. ``python mlflow_save.py FOLDER``.

Without a signature: MLflow's check of it costs a part of each call.
"""

from __future__ import annotations

import sys

import model

if (model.FOLDER / "booster.txt").exists():
    import lightgbm
    import mlflow.lightgbm

    mlflow.lightgbm.save_model(lightgbm.Booster(model_file=model.FOLDER / "booster.txt"), sys.argv[1])
else:
    import joblib
    import mlflow.sklearn

    pipeline = joblib.load(model.FOLDER / "model.joblib")
    mlflow.sklearn.save_model(
        pipeline, sys.argv[1], pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle"
    )
