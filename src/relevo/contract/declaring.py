"""Imported models: each has a declaration instead of a contract that a team wrote, and is governed like any other."""

from __future__ import annotations

import sqlalchemy as sa

from relevo.contract import store
from relevo.contract.model import AppliedContract, Contract
from relevo.errors import Conflict
from relevo.identity.model import Principal
from relevo.ledger.service import Ledger
from relevo.platform.clock import utc_now
from relevo.platform.encoding import digest, to_json
from relevo.platform.state import State, Transaction

_OTHER_NAME = "Import it under another name: --as NAME."


class Declarations:
    """Records what is imported, as revisions beside those of contracts. Thread-safe."""

    def __init__(self, state: State, ledger: Ledger) -> None:
        self._state = state
        self._ledger = ledger

    def declare(self, contract: Contract, text: str, actor: Principal, *, reason: str) -> AppliedContract:
        """Record the declaration of an imported model; that of the same import again changes nothing.

        Raises:
            Conflict: The name belongs to a model of another kind, or another registered model is imported as it.
        """
        imported = contract.imported
        assert imported is not None
        try:
            with self._state.transaction() as tx:
                live = _importable(tx, contract.model, imported.name)
                if live is not None and live.contract.imported == imported:
                    return live
                revision = 1 if live is None else live.revision + 1
                applied = AppliedContract(
                    contract.model, revision, contract, text, "", {}, None, applied_by=actor.name, applied_at=utc_now()
                )
                store.insert(tx, applied)
                self._ledger.append(
                    tx,
                    actor=actor,
                    action="model imported",
                    subject=f"{contract.model}/{imported.version}",
                    reason=reason,
                    evidence=digest({"text": text, "snapshot": ""}),
                    facts={"revision": revision, **to_json(imported)},
                )
                return applied
        except sa.exc.IntegrityError as error:
            raise Conflict(f"Somebody else declared {contract.model} at the same moment; import it again.") from error

    def check(self, model: str, registered: str) -> AppliedContract | None:
        """The declaration under which the registered model is imported as ``model``; None when there is none yet.

        Raises:
            Conflict: See ``declare``.
        """
        with self._state.read() as tx:
            return _importable(tx, model, registered)

    def governs(self, registered: str) -> bool:
        """Whether releases decide on the registered model of that name in MLflow."""
        with self._state.read() as tx:
            names = store.names(tx)
            if registered in names:
                return True
            declared = (store.current(tx, name) for name in names)
            imported = [applied.contract.imported for applied in declared if applied is not None]
        return any(one is not None and one.name == registered for one in imported)


def check_free(tx: Transaction, model: str) -> None:
    """Refuse the name of a model that was deleted.

    Raises:
        Conflict: It is one.
    """
    if store.is_deleted(tx, model):
        raise Conflict(f"The name {model!r} belonged to a model that was deleted; choose another.")


def _importable(tx: Transaction, model: str, registered: str) -> AppliedContract | None:
    check_free(tx, model)
    live = store.current(tx, model)
    if live is None:
        return None
    if live.contract.imported is None:
        raise Conflict(
            f"{model} has a contract: its versions come from its own training, and none can be imported.",
            hint=_OTHER_NAME,
        )
    if live.contract.imported.name != registered:
        raise Conflict(
            f"{model} is imported from models:/{live.contract.imported.name}, not from models:/{registered}.",
            hint=_OTHER_NAME,
        )
    return live
