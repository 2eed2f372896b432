"""HTTP: the permission that each route declares, signing in, and the routes of principals and tokens."""

from __future__ import annotations

import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from relevo.errors import NotAllowed, NotAuthenticated
from relevo.identity import policy
from relevo.identity.model import Account, Permission, Principal, Role, Token
from relevo.identity.service import SESSION_LIFETIME, Identity
from relevo.platform.encoding import to_json
from relevo.platform.state import State

SESSION_COOKIE = "relevo_session"
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf_token"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")


class Requires:
    """A FastAPI dependency that lets through whoever holds the permission, and gives the principal.

    A request carries ``Authorization: Bearer TOKEN``, or Basic with the token as the password, or the session cookie.
    With the cookie alone, a request that changes something also carries the session's CSRF token, in the header
    ``X-CSRF-Token`` or the form field ``csrf_token``: another site can send the cookie, but not know the token.
    """

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Principal:
        """The principal, also kept in ``request.state.principal``; ``request.state.csrf`` has the form's token.

        Raises:
            NotAuthenticated: Without a valid token or session.
            NotAllowed: When the permission or the CSRF token is missing.
        """
        principal = await authenticate(request)
        if not principal.may(self.permission):
            raise NotAllowed(f"{principal.name} ({principal.role}) lacks the permission {self.permission}.")
        return principal


def requires(permission: Permission) -> Requires:
    """``principal: Annotated[Principal, Depends(requires(Permission.READ))]`` protects a route."""
    return Requires(permission)


def declared_permissions(app: FastAPI) -> dict[str, Permission | None]:
    """``GET /path`` -> the permission that the route declares through any of its dependencies; None when it is open."""
    return {
        f"{method} {route.path}": _permission(getattr(route, "dependant", None))
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or {"MOUNT"})
    }


async def authenticate(request: Request) -> Principal:
    """Who sends the request, whatever they may do; a session's change needs its CSRF token."""
    identity: Identity = request.app.state.services.identity
    request.state.csrf = ""
    authorization = request.headers.get("authorization")
    if authorization is not None:
        token = policy.token_of(authorization)
        if token is None:
            raise NotAuthenticated("The Authorization header needs Bearer TOKEN, or Basic with the token as password.")
        principal = await run_in_threadpool(identity.authenticate, token)
    else:
        cookie = request.cookies.get(SESSION_COOKIE)
        if cookie is None:
            raise NotAuthenticated("This needs a token (Authorization: Bearer TOKEN) or a signed-in session.")
        principal, csrf = await run_in_threadpool(identity.session, cookie)
        await _check_csrf(request, csrf)
        request.state.csrf = csrf
    request.state.principal = principal
    return principal


def set_session_cookie(response: Response, cookie: str, *, is_https: bool) -> None:
    """Give the browser its session: no script reads it, no other site's request carries it."""
    response.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        path="/",
        httponly=True,
        samesite="strict",
        secure=is_https,
    )


def clear_session_cookie(response: Response) -> None:
    """Make the browser forget its session."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")


router = APIRouter(tags=["identity"])
Administrator = Annotated[Principal, Depends(requires(Permission.ADMINISTER))]


class NewPrincipal(BaseModel, extra="forbid"):
    """A principal to create."""

    name: str = Field(max_length=128)
    role: Role


class NewToken(BaseModel, extra="forbid"):
    """A token to create. Without a role it has its principal's."""

    principal: str = Field(max_length=128)
    role: Role | None = None
    note: str = Field(default="", max_length=256)
    expires_at: AwareDatetime | None = None
    rate: str | None = Field(default=None, max_length=32)


@router.get("/api/principals")
def list_principals(request: Request, _: Administrator) -> list[dict[str, Any]]:
    """Every principal, disabled ones too."""
    return [_account_json(account) for account in _identity(request).principals()]


@router.post("/api/principals", status_code=201)
def create_principal(request: Request, body: NewPrincipal, actor: Administrator) -> dict[str, Any]:
    """Create a principal."""
    with _state(request).transaction() as tx:
        return _account_json(_identity(request).create_principal(tx, body.name, body.role, actor=actor))


@router.delete("/api/principals/{name}", status_code=204)
def disable_principal(request: Request, name: str, actor: Administrator) -> None:
    """Disable a principal: its tokens and sessions end, its name stays taken."""
    with _state(request).transaction() as tx:
        _identity(request).disable_principal(tx, name, actor=actor)


@router.get("/api/tokens")
def list_tokens(request: Request, _: Administrator) -> list[dict[str, Any]]:
    """The facts of every token; never a token itself."""
    return [_token_json(token) for token in _identity(request).tokens()]


@router.post("/api/tokens", status_code=201)
def create_token(request: Request, body: NewToken, actor: Administrator) -> dict[str, Any]:
    """Create a token; the answer is the only place that shows it."""
    identity = _identity(request)
    role = body.role or _role_of(identity, body.principal)
    with _state(request).transaction() as tx:
        token = identity.create_token(
            tx, body.principal, role, note=body.note, expires_at=body.expires_at, rate=body.rate, actor=actor
        )
    return {"id": identity.token_id(token), "principal": body.principal, "role": role.value, "token": token}


@router.delete("/api/tokens/{token_id}", status_code=204)
def revoke_token(request: Request, token_id: str, actor: Administrator) -> None:
    """Revoke a token."""
    with _state(request).transaction() as tx:
        _identity(request).revoke(tx, token_id, actor=actor)


@router.get("/api/me")
def who_am_i(principal: Annotated[Principal, Depends(requires(Permission.READ))]) -> dict[str, str]:
    """Whose token or session this is."""
    return {"name": principal.name, "role": principal.role.value}


def _identity(request: Request) -> Identity:
    identity: Identity = request.app.state.services.identity
    return identity


def _state(request: Request) -> State:
    state: State = request.app.state.services.state
    return state


def _role_of(identity: Identity, principal_name: str) -> Role:
    roles = {account.name: account.role for account in identity.principals()}
    return roles.get(principal_name, Role.VIEWER)


def _account_json(account: Account) -> dict[str, Any]:
    fields: dict[str, Any] = to_json(account)
    return fields


def _token_json(token: Token) -> dict[str, Any]:
    fields: dict[str, Any] = to_json(token)
    return fields


def _permission(dependant: Dependant | None) -> Permission | None:
    if dependant is None:
        return None
    if isinstance(dependant.call, Requires):
        return dependant.call.permission
    return next(filter(None, map(_permission, dependant.dependencies)), None)


async def _check_csrf(request: Request, expected: str) -> None:
    if request.method in _SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.headers.get("content-type", "").lower().startswith(_FORM_TYPES):
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else None
    if given is None or not hmac.compare_digest(given.encode(), expected.encode()):
        raise NotAllowed("The form has no valid CSRF token; load the page again and repeat.", field=CSRF_FIELD)
