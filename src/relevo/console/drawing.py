"""From a Vega-Lite specification to SVG that fits a page: no inline style, colours from the stylesheet, unique ids."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import Any

from markupsafe import Markup

from relevo.platform.encoding import digest

Spec = dict[str, Any]  # Vega-Lite's JSON

INK, GRID, MUTED = (f"var(--chart-{name})" for name in ("ink", "grid", "muted"))

#: Drawings that are kept; about 10 KB each.
MAX_KEPT = 500

_kept: OrderedDict[str, str] = OrderedDict()
_lock = threading.Lock()

_ID = re.compile(r'\b(id="|url\(#|href="#)')
_ROLE = re.compile(r' aria-roledescription="[^"]*"')
_DECIMALS = re.compile(r"(\d\.\d{3})\d{3,}")  # places of a pixel that nobody sees are a third of a drawing
_SIZE = re.compile(r'<svg ([^>]*?)width="([\d.]+)" height="([\d.]+)"')


def svg(spec: Spec) -> str:
    """The drawing of a specification, kept by its content. Thread-safe.

    The first one in a process takes seconds, since it starts the engine; later ones 60 to 110 ms.
    """
    key = digest(spec)
    with _lock:  # the engine draws one at a time anyway
        found = _kept.get(key)
        if found is None:
            drawn = _DECIMALS.sub(r"\1", _ROLE.sub("", _converted(spec)))
            found = _kept[key] = _ID.sub(rf"\g<1>c{key[:10]}-", drawn)
            while len(_kept) > MAX_KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return found


def chart(spec: Spec, label: str, *, kind: str = "") -> Markup:
    """The drawing for a page, scaled to its place; ``label`` says what it shows to who cannot see it."""
    drawn = _SIZE.sub(r'<svg \1data-width="\2"', svg(spec), count=1)
    name = f"chart {kind}".strip()
    return Markup('<div class="{}" role="group" aria-label="{}" tabindex="0">{}</div>').format(
        name,
        label,
        Markup(drawn),  # noqa: S704, the engine escapes every text that it writes
    )


def config(*, ink: str = INK, muted: str = MUTED, grid: str = GRID) -> Spec:
    """How every chart looks: few thin lines, nothing that repeats the data."""
    return {
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {
            "aria": False,
            "labelColor": muted,
            "labelFontSize": 12,
            "labelPadding": 6,
            "titleColor": muted,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "domain": False,
            "ticks": False,
            "gridColor": grid,
            "gridWidth": 1,
        },
        "axisX": {"grid": False, "labelOverlap": "greedy", "domain": True, "domainColor": grid},
        "text": {"color": ink, "fontSize": 12},
        "title": {"color": ink, "fontSize": 14, "fontWeight": "bold", "anchor": "start"},
    }


def _converted(spec: Spec) -> str:
    import vl_convert  # 0.2 s to import, and 90 MB: only a process that draws pays for it

    drawn: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return drawn
