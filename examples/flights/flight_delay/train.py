"""How the model is fitted."""

from lightgbm import LGBMClassifier

from relevo.training import TrainingSet


def train(training: TrainingSet, params: dict) -> LGBMClassifier:
    """Gradient-boosted trees on the flight's own columns and what is known of airport and aircraft."""
    model = LGBMClassifier(**params, random_state=7, n_jobs=2, verbosity=-1)
    return model.fit(training.inputs, training.label)
