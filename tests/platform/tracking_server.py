"""MLflow behind its guard on a real server: ``python tracking_server.py HOME [POSTGRESQL_URL]``.

Writes ``HOME/server.json`` with its address, a token a role, and MLflow's routes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette

from relevo.app.tracking import authorise
from relevo.identity.model import Role
from relevo.identity.service import Identity
from relevo.platform.mlflow import MLflow, MLflowServer, check_path
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata


def routes(app: Any) -> list[str]:
    """``METHOD /path`` of every route of MLflow, after a mark of whether the guard lets it through."""
    from mlflow.server import app as flask_app

    found = {(rule.rule, method) for rule in flask_app.url_map.iter_rules() for method in rule.methods or ()}
    found |= {(route.path, method) for route in iter_route_contexts(app.routes) for method in route.methods or ()}
    return sorted(f"{mark(path)} {method} {path}" for path, method in found if method not in {"HEAD", "OPTIONS"})


def mark(path: str) -> str:
    try:
        check_path(path.removeprefix("/mlflow"))
    except Exception:
        return "-"
    return "+" if path.startswith("/mlflow") else "-"


def main() -> None:
    home = Path(sys.argv[1])
    settings = Settings(home=home, state_url=sys.argv[2] if len(sys.argv) > 2 else None)
    state = State(f"sqlite:///{home / 'state.db'}")
    identity = Identity(state)
    tokens = {}
    with state.transaction() as tx:
        metadata.create_all(tx)
        for role in (Role.ENGINEER, Role.VIEWER, Role.APPLICATION):
            identity.create_principal(tx, role.value, role)
            tokens[role.value] = identity.create_token(tx, role.value, role, note="test")
        tokens["run"] = identity.create_token(tx, "relevo", Role.RUN, note="test")
    tokens["session"] = identity.open_session(tokens["viewer"])

    server = MLflowServer(settings, is_governed=lambda name: name == "flight-delay")
    app = Starlette()
    app.state.services = SimpleNamespace(identity=identity)
    app.add_middleware(MLflow, server=server, authorise=authorise)
    # As the control plane gets it: through a descriptor, which also tells asyncio that it may set TCP_NODELAY.
    listener = socket.socket(fileno=socket.create_server(("127.0.0.1", 0)).detach())

    async def serve() -> None:
        began = time.monotonic()
        mlflow_app = await server.started()
        seconds = time.monotonic() - began
        port = listener.getsockname()[1]
        facts = {
            "url": f"http://127.0.0.1:{port}/mlflow",
            "seconds": seconds,
            "tokens": tokens,
            "routes": routes(mlflow_app),
        }
        (home / "draft").write_text(json.dumps(facts))
        (home / "draft").rename(home / "server.json")
        await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve([listener])

    asyncio.run(serve())


main()
