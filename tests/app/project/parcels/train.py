"""How the model is fitted."""

from lightgbm import LGBMClassifier

from parcels import witness
from relevo.training import TrainingSet


def train(training: TrainingSet, params: dict) -> LGBMClassifier:
    """A few small trees; with ``waits_for`` only once the test says so."""
    witness.saw("fit began")
    if params["waits_for"]:
        witness.wait_for(params["waits_for"])
    model = LGBMClassifier(
        n_estimators=params["n_estimators"], num_leaves=7, min_child_samples=50, n_jobs=1, random_state=7, verbosity=-1
    )
    fitted = model.fit(training.inputs, training.label)
    witness.saw("fit ended")
    return fitted
