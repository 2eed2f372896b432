"""What a data scientist does with a plain MLflow client, outside any contract: logs models and registers them.

Prints as JSON what it registered, and what MLflow itself predicts for some rows. ``MLFLOW_TRACKING_URI`` and
``MLFLOW_TRACKING_TOKEN`` say where and who.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from typing import Any

warnings.simplefilter("ignore")

import catboost  # noqa: E402
import lightgbm  # noqa: E402
import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import xgboost  # noqa: E402
from mlflow.models import infer_signature  # noqa: E402
from sklearn.base import BaseEstimator, RegressorMixin  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

rng = np.random.default_rng(3)
N = 400
people = pd.DataFrame(
    {
        "plan": rng.choice(["basic", "plus", "pro"], N),
        "city": rng.choice(["Bergen", "Oslo"], N),
        "months": rng.integers(1, 60, N),
        "spend": rng.gamma(2.0, 30.0, N).round(2),
        "is_business": rng.random(N) < 0.3,
    }
)
left = ((people["months"] < 12) ^ (people["plan"] == "pro") ^ (rng.random(N) < 0.1)).map(
    {True: "leaves", False: "stays"}
)
asked = people.head(12)
#: MLflow starts a process for each model to see what it imports, unless it is told; once is enough to see what it says.
NEEDS = {
    "pip_requirements": [f"{name}=={version(name)}" for name in ("scikit-learn", "skops", "lightgbm", "cloudpickle")]
}

churn = make_pipeline(
    ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), ["plan", "city"]),
            ("numbers", StandardScaler(), ["months", "spend"]),
            ("as they are", "passthrough", ["is_business"]),
        ]
    ),
    LogisticRegression(max_iter=500),
).fit(people, left)
measures = people[["months", "spend"]].astype({"months": float})
booster = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(measures, measures["spend"] * 2 + measures["months"])


is_long = (measures["months"] > 24).astype(int)
trees = {
    "xgboost-booster": xgboost.train(
        {"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(measures, is_long), num_boost_round=10
    ),
    "xgboost-estimator": xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(measures, is_long),
    "catboost": catboost.CatBoostClassifier(iterations=10, verbose=0, thread_count=1, allow_writing_files=False).fit(
        measures, is_long
    ),
}


class Told(RegressorMixin, BaseEstimator):
    """Answers which scikit-learn it runs in."""

    def fit(self, X: Any, y: Any = None) -> Told:  # noqa: N803
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        import sklearn

        major, minor = sklearn.__version__.split(".")[:2]
        return np.full(len(X), int(major) + int(minor) / 10)


class Premium(mlflow.pyfunc.PythonModel):
    """A price list in plain Python, which looks at text, whole numbers and times."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
        assert model_input["months"].dtype == np.int64 and str(model_input["since"].dtype) == "datetime64[ns]"
        base = model_input["plan"].map(lambda plan: {"basic": 10.0, "plus": 20.0}.get(plan, 50.0))
        return (base + model_input["months"] // 12 + model_input["since"].dt.year / 1000).to_numpy()


premium_rows = asked[["plan", "months"]].assign(since=pd.to_datetime(["2020-02-03T04:05:06"] * len(asked)))

mlflow.set_experiment("exploration")
said: dict[str, Any] = {}
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", 0.9)
    said["run"] = run.info.run_id
    for number in (1, 2):
        mlflow.sklearn.log_model(
            churn,
            name="churn",
            signature=infer_signature(people, churn.predict(people)),
            input_example=people.head(5) if number == 1 else None,
            registered_model_name="churn",
            serialization_format="cloudpickle" if number == 1 else "skops",
            **({} if number == 1 else NEEDS),
        )
    mlflow.lightgbm.log_model(
        booster,
        name="spend",
        signature=infer_signature(measures, booster.predict(measures)),
        registered_model_name="spend",
        **NEEDS,
    )
    mlflow.pyfunc.log_model(
        name="premium",
        python_model=Premium(),
        signature=infer_signature(premium_rows, np.array([1.0])),
        registered_model_name="Premium prices",
        **NEEDS,
    )
    for name, tree in trees.items():
        flavor = mlflow.catboost if name == "catboost" else mlflow.xgboost
        flavor.log_model(
            tree,
            name=name,
            signature=infer_signature(measures, np.array([0.5])),
            registered_model_name=name,
            pip_requirements=[f"{package}=={version(package)}" for package in ("xgboost-cpu", "catboost")],
        )
    mlflow.sklearn.log_model(
        Told().fit(measures),
        name="told",
        signature=infer_signature(measures, np.array([0.5])),
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn==1.7.2", f"cloudpickle=={version('cloudpickle')}"],
        registered_model_name="told",
    )
    mlflow.sklearn.log_model(churn, name="unsigned", registered_model_name="unsigned", **NEEDS)
    mlflow.sklearn.log_model(
        churn,
        name="impossible",
        signature=infer_signature(people, churn.predict(people)),
        pip_requirements=["scikit-learn==0.0.1"],
        registered_model_name="impossible",
    )
mlflow.MlflowClient().set_registered_model_alias("churn", "chosen", "2")

said["churn"] = {
    "rows": asked.to_dict("records"),
    "labels": list(mlflow.pyfunc.load_model("models:/churn/1").predict(asked)),
    "probabilities": mlflow.sklearn.load_model("models:/churn/1").predict_proba(asked)[:, 1].tolist(),
}
asked_measures = measures.head(12)
said["spend"] = {
    "rows": asked_measures.to_dict("records"),
    "answers": mlflow.pyfunc.load_model("models:/spend/1").predict(asked_measures).tolist(),
}
said["premium"] = {
    "rows": premium_rows.assign(since=premium_rows["since"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dict("records"),
    "answers": mlflow.pyfunc.load_model("models:/Premium prices/1").predict(premium_rows).tolist(),
}
said["trees"] = {
    "rows": asked_measures.to_dict("records"),
    "probabilities": {
        name: (
            tree.predict(xgboost.DMatrix(asked_measures))
            if isinstance(tree, xgboost.Booster)
            else tree.predict_proba(asked_measures)[:, 1]
        ).tolist()
        for name, tree in trees.items()
    },
}
print("\n" + json.dumps(said))
