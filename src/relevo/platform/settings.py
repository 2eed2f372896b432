"""Settings, from the environment (``RELEVO_*``), with embedded defaults."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from relevo.platform.memory import machine_bytes


class Settings(BaseSettings):
    """Where this installation keeps its state and where it listens.

    With nothing set, everything lives in SQLite files and folders under ``home``.
    """

    model_config = SettingsConfigDict(env_prefix="RELEVO_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".relevo"), description="Folder that holds all embedded state.")
    host: str = Field(default="127.0.0.1", description="Address that control plane and gateway listen on.")
    port: int = Field(default=8420, ge=1, le=65535, description="Port of the control plane: console, API, MLflow.")
    gateway_port: int = Field(
        default=8421, ge=1, le=65535, description="Port of the gateway: endpoints, labels, metrics."
    )
    gateway_workers: int = Field(default=1, ge=1, description="Gateway processes that share the port.")
    gateway_model_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Bytes of models that a gateway process keeps in memory; default: half the machine's, divided.",
    )
    gateway_body_bytes: int = Field(
        default=10_000_000, ge=1, description="Bytes that the body of a request has at most, before and after gzip."
    )
    gateway_rows: int = Field(default=10_000, ge=1, description="Rows, or labels, that a request brings at most.")
    gateway_concurrency: int = Field(
        default=1_000, ge=1, description="Requests that a gateway process has in flight at most."
    )
    gateway_timeout_ms: int = Field(
        default=10_000, ge=1, description="Milliseconds from the whole body to the answer; past them 504."
    )
    gateway_queue_ms: int = Field(
        default=500,
        ge=1,
        description="Milliseconds that a request may be expected to wait for its turn; past them 429.",
    )
    gateway_lag_ms: int = Field(
        default=500,
        ge=1,
        description="Milliseconds that a gateway process may be late; past them a share of the requests gets 429.",
    )
    gateway_body_seconds: float = Field(default=30.0, gt=0, description="Seconds for the body of a request to arrive.")
    gateway_process_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Bytes of a model's own process, past which it is replaced; default: the bytes of models.",
    )
    state_url: str | None = Field(default=None, description="SQLAlchemy URL of the state; default: SQLite in home.")
    online_url: str | None = Field(
        default=None, description="URL of a Redis for the online store; default: SQLite in home."
    )
    log_level: str = Field(default="INFO", description="Level of the process logs.")

    @property
    def root(self) -> Path:
        """The home folder as an absolute path."""
        return self.home.expanduser().resolve()

    @property
    def own_host(self) -> str:
        """The address at which this machine reaches its own servers, also when they listen on all of them."""
        return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104, compared, not bound

    @property
    def state_database(self) -> str:
        """SQLAlchemy URL of the state store."""
        return self.state_url or f"sqlite:///{self.root / 'state.db'}"

    @property
    def model_bytes(self) -> int:
        """What the models in memory of one gateway process may take."""
        return self.gateway_model_bytes or machine_bytes() // (2 * self.gateway_workers)

    @property
    def online_store(self) -> Path | str:
        """Where the online store is: the URL of a Redis, or a SQLite file in home."""
        return self.online_url or self.root / "online.db"

    def database(self, name: str) -> str:
        """SQLAlchemy URL of a database that one part owns (``dbos``, ``mlflow``, ``labels``)."""
        return self.state_url or f"sqlite:///{self.root / name}.db"

    def folder(self, *parts: str) -> Path:
        """A folder under home, made with mode 0700 when it is not there."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path
