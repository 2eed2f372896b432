"""The declaration of an imported model: what stands where a team's contract would."""

from __future__ import annotations

import yaml

from relevo.contract.model import Ask, Contract, Imported, Label, LogPolicy, Release, ServiceLevel, Training
from relevo.imports.model import Asked
from relevo.runtimes.model import Signature


def contract_of(asked: Asked, signature: Signature, import_id: str) -> Contract:
    """The declaration: name, owner, task, log, release; no package, sources, label, training, gates and rule."""
    registered = asked.registered
    return Contract(
        model=asked.model,
        owner=asked.owner,
        task=signature.task,
        package="",
        sources=(),
        ask=Ask(source="", inputs=tuple(column.name for column in signature.inputs)),
        label=Label(column="", source=""),
        training=Training(entry=""),
        release=Release(approvals=asked.approvals, slo=ServiceLevel(p99_ms=asked.p99_ms)),
        log=LogPolicy(asked.log),
        imported=Imported(registered.name, registered.version, import_id, asked.environment),
    )


def text_of(contract: Contract, uri: str) -> str:
    """The declaration for people, as YAML."""
    imported = contract.imported
    assert imported is not None
    said = {
        "model": contract.model,
        "owner": contract.owner,
        "task": contract.task.value,
        "import": {
            "from": f"models:/{imported.name}/{imported.version}",
            "asked_as": uri,
            "environment": imported.environment,
        },
        "ask": {"inputs": list(contract.ask.inputs)},
        "release": {"approvals": contract.release.approvals, "slo": {"p99_ms": contract.release.slo.p99_ms}},
        "log": contract.log.mode,
    }
    return "# Recorded by relevo import.\n" + yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
