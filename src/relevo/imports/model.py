"""What is asked of an import, and what it found. Light to import; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from relevo.contract.model import Task
from relevo.identity.model import Principal
from relevo.platform.mlflow_models import RegisteredVersion
from relevo.runtimes.model import Column, Signature


@dataclass(frozen=True, slots=True)
class Asked:
    """One import: which version becomes which model, and what the person said about it.

    ``task`` None: it is found. ``classes`` are needed only where the model does not know them. With the environment
    ``own`` the model runs in Relevo's own, whatever its requirements say.
    """

    uri: str
    model: str
    registered: RegisteredVersion
    actor: Principal
    owner: str
    reason: str = ""
    task: Task | None = None
    classes: tuple[str, ...] = ()
    environment: Literal["model", "own"] = "model"
    log: Literal["durable", "buffered"] = "durable"
    approvals: int = 1
    p99_ms: float = 50.0

    @property
    def label(self) -> str:
        """``model/version``."""
        return f"{self.model}/{self.registered.version}"


@dataclass(frozen=True, slots=True)
class Described:
    """What a model's folder says about it, without loading it."""

    flavor: str
    columns: tuple[Column, ...]
    python_version: str
    mlflow_version: str
    logged_at: datetime
    is_python_code: bool  # code pickled by value: it runs on the same minor version of Python alone
    example: str | None = None  # file of its input example


@dataclass(frozen=True, slots=True)
class Packed:
    """What the child left: the files beside it make a bundle with these."""

    runtime: str
    signature: Signature
    agreement: dict[str, object]
    compared_on: str
    libraries: str
