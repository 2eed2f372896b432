"""Who may read and write MLflow: the same principals as everywhere else."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from relevo.errors import NotAllowed, NotAuthenticated
from relevo.identity.api import SESSION_COOKIE, authenticate
from relevo.identity.model import Permission, Principal
from relevo.identity.service import Identity


async def authorise(request: Request, writes: bool) -> None:
    """Let through whoever may read, or for ``writes`` whoever may track.

    Raises:
        NotAuthenticated: Without a valid token or session.
        NotAllowed: The permission is missing, or another site sent the request.
    """
    principal = await _principal(request)
    if not (principal.may(Permission.TRACK) or (principal.may(Permission.READ) and not writes)):
        needed = Permission.TRACK if writes else Permission.READ
        raise NotAllowed(f"{principal.name} ({principal.role}) lacks the permission {needed}.")


async def _principal(request: Request) -> Principal:
    if "authorization" in request.headers:
        return await authenticate(request)
    cookie = request.cookies.get(SESSION_COOKIE)
    if cookie is None:
        raise NotAuthenticated("MLflow needs a token here: MLFLOW_TRACKING_TOKEN for clients, or a signed-in session.")
    if request.method not in {"GET", "HEAD"} and not _is_same_origin(request):
        raise NotAllowed("Another site sent this request with your session.")
    identity: Identity = request.app.state.services.identity
    principal, _ = await run_in_threadpool(identity.session, cookie)
    return principal


def _is_same_origin(request: Request) -> bool:
    """MLflow's pages know no CSRF token; the browser says from where they came."""
    origin = request.headers.get("origin", "")
    return urlsplit(origin).netloc == request.headers.get("host") and bool(origin)
