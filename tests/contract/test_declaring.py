"""Imported models: declared as revisions beside those of contracts, never under the same name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from relevo.contract.declaring import Declarations
from relevo.contract.model import Ask, Contract, Imported, Label, Release, Task, Training
from relevo.contract.service import ContractService
from relevo.contract.upload import read_project
from relevo.errors import Conflict
from relevo.identity.model import Principal
from relevo.ledger.service import Ledger
from relevo.platform.state import State

CHURN = Contract(
    model="churn",
    owner="crm",
    task=Task.CLASSIFICATION,
    package="",
    sources=(),
    ask=Ask(source="", inputs=("plan",)),
    label=Label(column="", source=""),
    training=Training(entry=""),
    release=Release(approvals=2),
    imported=Imported("Churn model", 3, "import-churn-v3-1"),
)


@pytest.fixture
def declarations(state: State, ledger: Ledger) -> Declarations:
    return Declarations(state, ledger)


def test_a_declaration_is_a_revision_and_the_same_import_makes_no_other(
    declarations: Declarations, contracts: ContractService, ledger: Ledger, engineer: Principal
) -> None:
    applied = declarations.declare(CHURN, "model: churn", engineer, reason="try it")
    assert (applied.revision, applied.applied_by) == (1, "erin")
    assert contracts.current("churn").contract == CHURN
    assert declarations.declare(CHURN, "model: churn", engineer, reason="again").revision == 1
    next_one = dataclasses.replace(CHURN, imported=Imported("Churn model", 4, "import-churn-v4-1"))
    assert declarations.declare(next_one, "model: churn", engineer, reason="better").revision == 2
    entries = ledger.entries("churn/3")
    assert [(entry.action, entry.reason) for entry in entries] == [("model imported", "try it")]


def test_the_registered_model_is_governed_by_its_own_name_and_by_the_one_here(
    declarations: Declarations, engineer: Principal
) -> None:
    assert not declarations.governs("Churn model")
    declarations.declare(CHURN, "", engineer, reason="")
    assert declarations.governs("Churn model") and declarations.governs("churn")
    assert not declarations.governs("Other model")


def test_names_of_contracts_and_imports_exclude_one_another(
    declarations: Declarations, contracts: ContractService, engineer: Principal, upload: bytes
) -> None:
    contracts.apply(upload, engineer)
    with pytest.raises(Conflict, match="has a contract"):
        declarations.check("parcels", "parcels")
    declarations.declare(CHURN, "", engineer, reason="")
    with pytest.raises(Conflict, match="imported from models:/Churn model, not from models:/Other"):
        declarations.check("churn", "Other")


def test_no_contract_can_take_the_name_of_an_imported_model(
    declarations: Declarations, contracts: ContractService, engineer: Principal, upload: bytes
) -> None:
    declarations.declare(dataclasses.replace(CHURN, model="parcels"), "", engineer, reason="")
    for attempt in (lambda: contracts.apply(upload, engineer), lambda: contracts.plan(upload)):
        with pytest.raises(Conflict, match="is imported from models:/Churn model"):
            attempt()


@pytest.fixture
def upload(tmp_path: Path) -> bytes:
    """The project of these tests, whose model is parcels."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("contract_project", Path(__file__).with_name("project.py"))
    assert spec and spec.loader
    project = module_from_spec(spec)
    spec.loader.exec_module(project)
    return read_project(project.write(tmp_path / "p"))
