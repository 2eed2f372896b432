"""Console pages: sign in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from relevo.console.layout import Crumb, page, redirect
from relevo.errors import NotAllowed, NotAuthenticated
from relevo.identity.api import SESSION_COOKIE, clear_session_cookie, requires, set_session_cookie
from relevo.identity.model import Permission, Principal
from relevo.identity.service import Identity

router = APIRouter(tags=["console"], include_in_schema=False)
Reader = Annotated[Principal, Depends(requires(Permission.READ))]


@router.get("/login")
async def show_login(request: Request, next: str = "/") -> HTMLResponse:  # noqa: A002, the address says next
    """The form to sign in; open to everybody."""
    return _login(request, next)


@router.post("/login")
async def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=256)],
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    """Open a session for whoever has a token that may read; open to everybody."""
    _refuse_other_sites(request)
    identity: Identity = request.app.state.services.identity
    try:
        principal = await run_in_threadpool(identity.authenticate, token.strip())
    except NotAuthenticated as error:
        return _login(request, next, problem=error.message, status=401)
    if not principal.may(Permission.READ):
        problem = f"The token of {principal.name} has the role {principal.role}, which may not read the console."
        return _login(request, next, problem=problem, status=403)
    cookie = await run_in_threadpool(identity.open_session, token.strip())
    answer = redirect(_local(next))
    set_session_cookie(answer, cookie, is_https=request.url.scheme == "https")
    return answer


@router.get("/logout")
async def show_logout(request: Request, _: Reader) -> HTMLResponse:
    """The form to sign out."""
    return page(request, "logout.html", title="Sign out", crumbs=[Crumb("Fleet", "/"), Crumb("Sign out")])


@router.post("/logout")
async def sign_out(request: Request, _: Reader) -> Response:
    """End the session."""
    identity: Identity = request.app.state.services.identity
    await run_in_threadpool(identity.close_session, request.cookies.get(SESSION_COOKIE, ""))
    answer = redirect("/login", "signed-out")
    clear_session_cookie(answer)
    return answer


def _login(request: Request, wanted: str, *, problem: str | None = None, status: int = 200) -> HTMLResponse:
    return page(request, "login.html", title="Sign in", status=status, wanted=_local(wanted), problem=problem)


def _local(address: str) -> str:
    """An address on this site; anything else becomes the first page, so that no link can lead away after signing in."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_local and not address.startswith("/login") else "/"


def _refuse_other_sites(request: Request) -> None:
    """A form on another site could sign the browser in as somebody else; browsers say where a form came from."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise NotAllowed("The form to sign in was sent from another site.")
