"""Planning and applying contracts over a real state store, with real children that describe the package."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa

from relevo.contract.model import LogPolicy
from relevo.contract.policy import views_of
from relevo.contract.service import ContractService
from relevo.contract.store import contracts as table
from relevo.contract.upload import read_project
from relevo.errors import Conflict, Invalid, JobFailed, NotFound
from relevo.features.expressions import Transform
from relevo.identity.model import Principal
from relevo.ledger.service import Ledger
from relevo.platform.encoding import parse
from relevo.platform.state import State


def _project() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contract_project", Path(__file__).with_name("project.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


project = _project()


def test_applying_records_a_revision_with_what_the_package_declares(
    contracts: ContractService, ledger: Ledger, engineer: Principal, tmp_path: Path
) -> None:
    upload = read_project(project.write(tmp_path / "p"))

    planned = contracts.plan(upload)
    assert (planned.revision, planned.live_revision, planned.is_applied) == (1, None, False)
    assert contracts.models() == []

    change = contracts.apply(upload, engineer, reason="first")
    assert (change.revision, change.is_applied, change.is_empty) == (1, True, False)
    applied = contracts.current("parcels")
    assert contracts.models() == ["parcels"]
    assert applied == contracts.revision("parcels", 1)
    assert (applied.text, applied.applied_by) == (project.CONTRACT, "erin")
    assert applied.applied_at is not None
    views = views_of(applied.description)
    assert [view.name for view in views] == ["load", "shelf"]
    assert views[0].features[0].over == timedelta(days=1)
    assert (contracts.snapshot_folder(applied.snapshot) / "parcels" / "train.py").is_file()
    assert contracts.python(applied).exists()

    entry = ledger.entries("parcels")[0]
    assert (entry.action, entry.actor, entry.reason) == ("contract applied", "erin", "first")
    assert entry.facts["snapshot"] == applied.snapshot


def test_applying_the_same_again_changes_nothing(
    contracts: ContractService, ledger: Ledger, engineer: Principal, tmp_path: Path
) -> None:
    folder = project.write(tmp_path / "p")
    contracts.apply(read_project(folder), engineer)
    (folder / "parcels" / "__pycache__").mkdir()
    (folder / "parcels" / "__pycache__" / "train.cpython-311.pyc").write_bytes(b"compiled")
    project.write(folder, contract="# a remark changes nothing\n" + project.CONTRACT)

    again = contracts.apply(read_project(folder), engineer)

    assert again.is_empty
    assert not again.is_applied
    assert again.revision == 1
    assert again.lines() == ["parcels: nothing changes; revision 1 is applied"]
    assert len(ledger.entries("parcels")) == 1


def test_a_change_names_each_field_and_file(contracts: ContractService, engineer: Principal, tmp_path: Path) -> None:
    folder = project.write(tmp_path / "p")
    contracts.apply(read_project(folder), engineer)
    text = (
        project.CONTRACT.replace("at_least: 0.6", "at_least: 0.7")
        .replace("6h", "12h")
        .replace("params: {depth: 4}", "params: {leaves: 31}")
    )
    text += "retrain: {when: {any_of: [{age: 28d}], windows: 2 of 3}, guards: {at_most: 14 per 365d}}\n"
    features = project.FILES["parcels/features.py"].replace("over='1d'", "over='2d'")
    project.write(folder, contract=text, features=features)
    (folder / "parcels" / "extra.py").write_text("")

    change = contracts.apply(read_project(folder), engineer)

    assert change.lines() == [
        "parcels: applied as revision 2",
        "  ~ label.available_after: 6h -> 12h",
        "  + training.params.leaves: 31",
        "  ~ gates[0]: roc_auc at_least 0.6 -> roc_auc at_least 0.7",
        "  + retrain.when.any_of[0]: age 28d",
        "  + retrain.when.windows: 2 of 3",
        "  + retrain.guards.cool_down: 0s",
        "  + retrain.guards.at_most: 14 per 365d",
        "  + retrain.guards.freeze_without_labels: true",
        "  ~ features.load.pieces_1d: mean(pieces) over 1d -> mean(pieces) over 2d",
        "  - training.params.depth: 4",
        "  code + parcels/extra.py",
        "  code ~ parcels/features.py",
    ]
    assert contracts.revision("parcels", 1).contract.training.params == {"depth": 4}
    assert contracts.current("parcels").contract.training.params == {"leaves": 31}


@pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
def test_what_is_missing_in_the_package_is_refused_with_its_line_and_the_nearest_name(
    contracts: ContractService, engineer: Principal, tmp_path: Path
) -> None:
    text = project.CONTRACT.replace("sources:orders", "sources:order")
    text = text.replace("event_time: ordered_at", 'event_time: ordered_at\n    checks: "parcels.checks:Order"')
    text = text.replace("parcels.sources:stock", "parcels.source:stock")
    text = text.replace("train:train", "train:fit").replace('"parcels.features"', '"parcels.feature"')
    with pytest.raises(Invalid) as caught:
        contracts.apply(read_project(project.write(tmp_path / "p", contract=text, checks=project.CHECKS)), engineer)
    assert caught.value.message.splitlines() == [
        "relevo.yaml:7: sources.orders.loader: expected a function of parcels.sources, got 'order', "
        "which is not there; did you mean 'orders'?",
        "relevo.yaml:10: sources.orders.checks: expected a dataframely schema or a function of parcels.checks, "
        "got 'Order', which is not there; did you mean 'Orders'?",
        "relevo.yaml:11: sources.stock.loader: expected a module of parcels, got 'parcels.source'; "
        "did you mean 'parcels.sources'?",
        "relevo.yaml:12: features: expected a module of parcels, got 'parcels.feature'; "
        "did you mean 'parcels.features'?",
        "relevo.yaml:15: training.entry: expected a function of parcels.train, got 'fit', which is not there; "
        "there is train",
    ]
    assert contracts.models() == []


@pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
def test_what_is_there_but_not_what_it_should_be_is_refused(contracts: ContractService, tmp_path: Path) -> None:
    text = project.CONTRACT.replace("sources:orders", "sources:NOT_A_FUNCTION")
    sources = project.FILES["parcels/sources.py"].replace("stock(until", "stock(to, until")
    train = project.FILES["parcels/train.py"].replace("(training, params)", "(data)")
    features = project.FILES["parcels/features.py"].replace("ttl='6h'", "ttl='six'")
    folder = project.write(tmp_path / "p", contract=text, sources=sources, train=train, features=features)
    with pytest.raises(Invalid) as caught:
        contracts.plan(read_project(folder))
    assert caught.value.message.splitlines() == [
        "relevo.yaml:7: sources.orders.loader: expected a function, got 'NOT_A_FUNCTION', which is a value of type int",
        "relevo.yaml:10: sources.stock.loader: expected a function of nothing, or of since and until, "
        "got one of (to, until=None)",
        'relevo.yaml:11: features: importing parcels.features raised Invalid: expected a duration such as "30m", "6h" '
        "or \"90d\", got 'six' (features.py, line 4)",
        "relevo.yaml:14: training.entry: expected a function of (training, params), got one of (data)",
    ]


@pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
def test_a_package_that_cannot_be_imported_is_refused_with_its_own_line(
    contracts: ContractService, tmp_path: Path
) -> None:
    sources = "import os\n\nimport lost_package\n"
    train = "def train(training, params):\n    retrun this\n"
    folder = project.write(tmp_path / "p", sources=sources, train=train, features="raise SystemExit(3)\n")
    with pytest.raises(Invalid) as caught:
        contracts.plan(read_project(folder))
    lost = "importing parcels.sources raised ModuleNotFoundError: No module named 'lost_package' (sources.py, line 3)"
    assert caught.value.message.splitlines() == [
        f"relevo.yaml:7: sources.orders.loader: {lost}",
        f"relevo.yaml:10: sources.stock.loader: {lost}",
        "relevo.yaml:11: features: importing parcels.features raised SystemExit: 3 (features.py, line 1)",
        "relevo.yaml:14: training.entry: importing parcels.train raised SyntaxError: invalid syntax (train.py, line 2)",
    ]


@pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
def test_a_package_that_brings_its_process_down_says_how(contracts: ContractService, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="exit code 9"):
        contracts.plan(read_project(project.write(tmp_path / "p", train="import os\nos._exit(9)\n")))


def test_the_name_of_a_deleted_model_is_never_used_again(
    contracts: ContractService, state: State, engineer: Principal, tmp_path: Path
) -> None:
    upload = read_project(project.write(tmp_path / "p"))
    contracts.apply(upload, engineer)
    with state.transaction() as tx:
        contracts.delete(tx, "parcels", engineer, reason="replaced")
    assert contracts.models() == []
    with pytest.raises(NotFound):
        contracts.current("parcels")
    with pytest.raises(Conflict, match="belonged to a model that was deleted"):
        contracts.apply(upload, engineer)
    assert contracts.revision("parcels", 1).revision == 1


def test_an_unknown_model_is_answered_with_the_nearest(
    contracts: ContractService, engineer: Principal, tmp_path: Path
) -> None:
    contracts.apply(read_project(project.write(tmp_path / "p")), engineer)
    with pytest.raises(NotFound, match="There is no model 'parcel'; did you mean 'parcels'"):
        contracts.current("parcel")
    with pytest.raises(NotFound):
        contracts.revision("parcels", 2)


TRANSFORMS = """
from relevo.features.request import OnRequest, value

transforms = OnRequest({"load_share": value("density") / 2, "density": value("weight") / value("pieces")})
"""


def test_transforms_are_described_and_shown_as_differences(
    contracts: ContractService, engineer: Principal, tmp_path: Path
) -> None:
    folder = project.write(tmp_path / "p")
    contracts.apply(read_project(folder), engineer)
    project.write(folder, features=project.FILES["parcels/features.py"] + TRANSFORMS)
    change = contracts.apply(read_project(folder), engineer)
    assert [str(difference) for difference in change.differences] == [
        "+ features.on_request.density: divide(weight, pieces)",
        "+ features.on_request.load_share: divide(density, 2.0)",
    ]
    described = contracts.current("parcels").description["transforms"]
    assert [parse(Transform, each).name for each in described] == ["density", "load_share"]  # type: ignore[attr-defined]


def test_a_view_of_derived_columns_is_described_and_may_not_read_the_label(
    contracts: ContractService, engineer: Principal, tmp_path: Path
) -> None:
    declared = project.FILES["parcels/features.py"] + (
        "import polars as pl\n"
        "past = FeatureView('past', entity=depot, source='SOURCE', columns={'rate': pl.col('is_late') * 1.0},\n"
        "    features={'late_rate': mean('rate', over='7d', default=0.5)}, fresh_within='1d')\n"
    )
    folder = project.write(tmp_path / "p", features=declared.replace("SOURCE", "orders"))
    with pytest.raises(Invalid) as raised:
        contracts.plan(read_project(folder))
    assert "relevo.yaml:11: features: view past: derived column rate reads the label is_late" in raised.value.message
    project.write(folder, features=declared.replace("SOURCE", "stock"))
    contracts.apply(read_project(folder), engineer)
    view = next(view for view in views_of(contracts.current("parcels").description) if view.name == "past")
    assert (view.derived[0].reads, view.features[0].default, view.fresh_within) == (
        ("is_late",),
        0.5,
        timedelta(days=1),
    )


def test_a_contract_stored_with_one_word_for_its_log_is_read(
    contracts: ContractService, state: State, engineer: Principal, tmp_path: Path
) -> None:
    contracts.apply(read_project(project.write(tmp_path / "p")), engineer, reason="first")
    with state.transaction() as tx:
        stored = tx.execute(sa.select(table.c.contract)).scalar_one()
        tx.execute(sa.update(table).values(contract=stored | {"log": "buffered"}))
    assert contracts.current("parcels").contract.log == LogPolicy(mode="buffered")
