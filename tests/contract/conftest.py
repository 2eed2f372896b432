"""Services that the contract's tests use: real ones, in a home of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from relevo.contract.service import ContractService
from relevo.identity.model import Principal, Role
from relevo.ledger.service import Ledger
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def ledger(state: State) -> Ledger:
    return Ledger(state)


@pytest.fixture
def contracts(state: State, settings: Settings, ledger: Ledger) -> ContractService:
    return ContractService(state, Objects(settings.folder("objects")), settings, ledger)


@pytest.fixture
def engineer() -> Principal:
    return Principal("erin", Role.ENGINEER)
