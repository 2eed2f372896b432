"""A project whose lock pins another scikit-learn and numpy than ours: fitted, sealed and served on those."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

import pytest
from running import Relevo
from team import BEGINS, Project

pytestmark = pytest.mark.timeout(600)

PINS = {"scikit-learn": "1.7.2", "numpy": "2.3.5"}
WITH_THESE = "with scikit-learn 1.7.2 and numpy 2.3.5"

TRAIN = '''
import numpy
import sklearn
from sklearn.linear_model import LogisticRegression

from parcels import witness


def libraries():
    return f"with scikit-learn {sklearn.__version__} and numpy {numpy.__version__}"


class Witnessed:
    """A class of the team's own, so it runs in a process; it says which libraries it is asked with."""

    def __init__(self, model):
        self.model, self.classes_ = model, model.classes_

    def predict_proba(self, rows):
        witness.saw(f"asked {libraries()}")
        return self.model.predict_proba(rows[["weight"]])


def train(training, params):
    witness.saw(f"fitted {libraries()}")
    return Witnessed(LogisticRegression().fit(training.inputs[["weight"]], training.label))
'''


def test_a_version_is_fitted_sealed_and_served_with_the_pins_of_its_own_lock(
    relevo: Relevo, make_project: Callable[[str], Project]
) -> None:
    assert all(metadata.version(name) != pin for name, pin in PINS.items())
    project = make_project("own-environment")
    (project.folder / "requirements.lock").write_text("".join(f"{name}=={pin}\n" for name, pin in PINS.items()))
    (project.folder / "parcels" / "train.py").write_text(TRAIN)
    relevo.replay(project.model, BEGINS)
    version = relevo.bring_live(relevo.apply(project.folder))
    assert _lived(project) == {f"fitted {WITH_THESE}", f"asked {WITH_THESE}"}
    (sealed,) = relevo.admin.get(f"/api/models/{project.model}/versions")
    assert (sealed["number"], sealed["facts"]["agreement"]["runtime"]) == (version, "isolated")

    before = len(project.record())
    body = {"dataframe_records": [{"depot": "port", "weight": 1.0}, {"depot": "port", "weight": 15.0}]}
    light, heavy = relevo.application.gateway_post(f"/endpoints/{project.model}/invocations", body)["predictions"]
    assert 0 < light < heavy < 1
    assert f"asked {WITH_THESE}" in project.record()[before:]
    assert _lived(project) == {f"fitted {WITH_THESE}", f"asked {WITH_THESE}"}


def _lived(project: Project) -> set[str]:
    """With which libraries the model was fitted and asked, so far."""
    return {line for line in project.record() if line.startswith(("fitted", "asked"))}
