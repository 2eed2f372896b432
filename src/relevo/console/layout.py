"""Renders pages: the frame that all share, what a page knows of its surroundings, and redirects after forms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import relevo
from relevo.console.headers import HEADERS
from relevo.console.wording import FILTERS

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

#: What a page says after a form was sent. The address carries the key alone, so that nobody can put words in it.
NOTICES: dict[str, str] = {
    "approved": "Your approval is on record. The release goes on as soon as enough people have approved it.",
    "refused": "Your refusal is on record. The release ends here; its version stays a candidate.",
    "resolved": "The alert is resolved. The next window that shows the same opens a new one.",
    "training": "Training has started. This page says what it does, and what it waits for.",
    "cancelled": "The release stops at its next step; a canary gives its traffic back.",
    "proved": "The parity proof is done; what it found stands below.",
    "rolled-back": "The previous champion is back with all of the traffic.",
    "signed-out": "You are signed out.",
}


@dataclass(frozen=True, slots=True)
class Crumb:
    """A step of the way to a page. The last one, the page itself, has no address."""

    text: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Doing:
    """What a workflow does now, or waits for."""

    model: str | None
    is_waiting: bool
    text: str


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """What stands above every page of a model."""

    name: str
    owner: str
    task: str
    live: str | None
    health: str
    event_at: object
    is_replay: bool


class Surroundings(Protocol):
    """What the frame shows around a page. The application gives it, since it looks across concepts."""

    def waiting(self) -> int:
        """How many releases wait for approval."""
        ...

    def alerts(self) -> int:
        """How many alerts are open."""
        ...

    def doing(self, model: str | None = None) -> Sequence[Doing]:
        """What goes on, in all or for one model."""
        ...

    def header(self, model: str) -> ModelHeader:
        """What stands above the pages of a model.

        Raises:
            NotFound: There is no such model.
        """
        ...


#: The pages of a model: what stands on the tab, and what follows ``/models/NAME`` in the address.
TABS: tuple[tuple[str, str], ...] = (
    ("Overview", ""),
    ("Windows", "/windows"),
    ("Versions", "/versions"),
    ("Releases", "/releases"),
    ("Retraining", "/retraining"),
    ("Features", "/features"),
    ("Lineage", "/lineage"),
    ("Contract", "/contract"),
)


def page(
    request: Request,
    template: str,
    *,
    title: str,
    crumbs: Sequence[Crumb] = (),
    status: int = 200,
    **context: object,
) -> HTMLResponse:
    """The page as HTML.

    Args:
        request: Says who looks at it, and which notice to show.
        template: Its file in ``templates/``.
        title: Of the browser's tab, and the page's heading unless the template sets another.
        crumbs: The way to it.
        status: Of the answer.
        context: What the template shows.
    """
    principal = getattr(request.state, "principal", None)
    content = environment().get_template(template).render(
        title=title,
        crumbs=crumbs,
        principal=principal,
        csrf_token=getattr(request.state, "csrf", ""),
        surroundings=getattr(request.app.state, "surroundings", None) if principal is not None else None,
        notice=NOTICES.get(request.query_params.get("notice", "")),
        here=request.url.path,
        section=request.url.path.split("/")[1],
        **context,
    )  # fmt: skip
    return HTMLResponse(content, status, headers={"Cache-Control": "no-store", **HEADERS})


def model_page(
    request: Request, template: str, *, model: str, tab: str, crumbs: Sequence[Crumb] = (), **context: object
) -> HTMLResponse:
    """A page of a model, below the header and the tabs that all of them share.

    Args:
        request: As for ``page``.
        template: Its file.
        model: The model's name.
        tab: Which tab it belongs to.
        crumbs: What follows the tab on the way to it.
        context: What the template shows.

    Raises:
        NotFound: There is no such model.
    """
    surroundings: Surroundings = request.app.state.surroundings
    header = surroundings.header(model)
    root = model_address(model)
    tab_address = root + dict(TABS)[tab]
    way = [Crumb("Fleet", "/"), Crumb(model, root)]
    if tab != "Overview":
        way.append(Crumb(tab, tab_address))
    way.extend(crumbs)
    last = way.pop()
    return page(
        request,
        template,
        title=" · ".join(dict.fromkeys((last.text, model))),
        crumbs=[*way, Crumb(last.text)],
        status=200,
        header=header,
        root=root,
        tabs=[(text, root + path, text == tab) for text, path in TABS],
        **context,
    )


def model_address(model: str, *parts: object) -> str:
    """The address of a model's page.

    >>> model_address("flight-delay", "versions", 3)
    '/models/flight-delay/versions/3'
    """
    return "/".join(("/models", quote(model, safe=""), *(quote(str(part), safe=":") for part in parts)))


def dataset_address(model: str, source: str, *parts: object) -> str:
    """The address of a dataset's page.

    >>> dataset_address("flight-delay", "flights", 3, "profile")
    '/datasets/flight-delay/flights/3/profile'
    """
    return "/".join(("/datasets", *(quote(str(part), safe="") for part in (model, source, *parts))))


def redirect(address: str, notice: str | None = None) -> RedirectResponse:
    """To another page after a form, by GET, so that reloading it sends nothing again."""
    query = f"?{urlencode({'notice': notice})}" if notice is not None else ""
    return RedirectResponse(address + query, 303)


@cache
def environment() -> Environment:
    """The templates, with what all of them may use. Undefined names are errors."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.globals.update(
        static=static_address,
        model_address=model_address,
        dataset_address=dataset_address,
        release_number=relevo.__version__,
    )
    return made


@cache
def static_address(name: str) -> str:
    """The address of a static file; it changes with the content, so that browsers may keep it."""
    return f"/static/{name}?{hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
