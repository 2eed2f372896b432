"""Errors as pages, where a person asked with a browser."""

from __future__ import annotations

import json
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from relevo.console.layout import Crumb, page
from relevo.errors import NotAuthenticated

#: What answers programs, in JSON; every other address is a page's.
_PROGRAMS = ("/api", "/mlflow", "/static", "/health")

_HEADINGS = {
    400: "That does not fit",
    403: "You may not do this",
    404: "There is nothing here",
    409: "This has moved on",
    422: "That does not fit",
    429: "Too many at once",
    503: "Not available now",
}


def is_page(request: Request) -> bool:
    """Whether the address is that of a page."""
    path = request.url.path
    return not any(path == prefix or path.startswith(f"{prefix}/") for prefix in _PROGRAMS)


def answer_page(request: Request, answer: Response) -> Response:
    """An error's answer for programs as a page; who is not signed in gets the page to do so, and comes back after it.

    Args:
        request: What was asked.
        answer: The error in its one JSON shape.
    """
    if answer.status_code == NotAuthenticated.http_status:
        return _sign_in(request)
    error = json.loads(bytes(answer.body))["error"]
    return _error_page(request, answer.status_code, error["message"], error["hint"])


def _error_page(request: Request, status: int, message: str, hint: str | None) -> HTMLResponse:
    heading = _HEADINGS.get(status, "Something went wrong")
    back = request.headers.get("referer") if request.method == "POST" else None
    same_site = back is not None and back.startswith(f"{request.url.scheme}://{request.url.netloc}/")
    return page(
        request,
        "error.html",
        title=heading,
        crumbs=[Crumb("Fleet", "/"), Crumb(heading)],
        status=status,
        message=message,
        hint=hint,
        back=back if same_site else None,
    )


def _sign_in(request: Request) -> RedirectResponse:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    address = "/login" if request.method != "GET" or wanted == "/" else f"/login?next={quote(wanted, safe='/')}"
    return RedirectResponse(address, 303)
