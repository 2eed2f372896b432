import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relevo.console import charts, drawing, figure, version_chart
from relevo.console.charts import Cell, Mark, Point
from relevo.console.version_chart import VersionBar

BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
POINTS = [
    Point(BEGIN + i * WEEK, BEGIN + (i + 1) * WEEK, 0.78 - i / 100, f"week {i}: 0.7", low=0.7, high=0.8, reference=0.77)
    for i in range(4)
]
GAP = [*POINTS, Point(BEGIN + 4 * WEEK, BEGIN + 5 * WEEK, None, "nothing known", is_final=False)]
CELLS = [Cell(point.start, point.end, "speed", 0.2, True, f"speed, {point.text}") for point in POINTS]
BARS = [VersionBar(str(i), 40 * i, f"version {i}: {40 * i} rows", i == 2) for i in range(4)]
MONTHS: list[dict[str, Any]] = [
    {
        "month": f"2013-{month:02d}", "auc_live": 0.78, "auc_first_model": 0.77, "log_loss_live": 0.44,
        "log_loss_first_model": 0.45, "drift": 0.2, "events": ["v3 live"] if month == 6 else [],
    }
    for month in range(4, 13)
]  # fmt: skip
SPECS = {
    "performance": charts.performance_spec(GAP, [Mark(BEGIN + WEEK, "v2")]),
    "performance of one window": charts.performance_spec(POINTS[:1], []),
    "bars": charts.bar_spec(GAP, colour=charts.SERIES, is_share=True, bound=0.8),
    "map": charts.map_spec(CELLS),
    "sparkline": charts.sparkline_spec(GAP),
    "versions": version_chart.version_spec(BARS),
    "months": figure.months_spec(MONTHS),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_specification_is_valid_vega_lite(name: str) -> None:
    from altair.vegalite.v6.schema.core import Root

    Root.validate(SPECS[name])


@pytest.mark.parametrize("name", SPECS)
def test_a_drawing_carries_no_style_no_script_and_only_our_colours(name: str) -> None:
    drawn = drawing.svg(SPECS[name])
    root = ET.fromstring(drawn)
    for element in root.iter():
        assert not element.tag.endswith(("}style", "}script", "}image"))
        assert not {"style", "onload", "onclick"} & element.attrib.keys()
        for attribute in ("fill", "stroke"):
            colour = element.get(attribute, "none")
            if name != "months":
                assert colour in {"none", "transparent"} or colour.startswith("var(--"), colour


def test_each_window_says_its_values() -> None:
    root = ET.fromstring(drawing.svg(SPECS["performance"]))
    said = [element.get("aria-label") for element in root.iter() if element.get("role") == "graphics-symbol"]
    assert said == [point.text for point in GAP]


def test_bars_stand_and_grow_with_the_value() -> None:
    root = ET.fromstring(drawing.svg(charts.bar_spec(POINTS, colour=charts.SERIES)))
    paths = [element.get("d", "") for element in root.iter() if element.get("fill") == charts.SERIES]
    heights = [float(path.split("v")[1].split("h")[0]) for path in paths]
    assert len(heights) == len(POINTS)
    assert heights == sorted(heights, reverse=True) and heights[-1] > 50


def test_names_in_a_drawing_are_escaped() -> None:
    hostile = '<script>alert(1)</script>"'
    cells = [Cell(POINTS[0].start, POINTS[0].end, hostile, 0.2, True, hostile)]
    drawn = str(charts.drift_map(cells))
    assert "<script" not in drawn and "&lt;script&gt;" in drawn
    labelled = str(charts.sparkline(POINTS, hostile))
    assert 'aria-label="&lt;script&gt;alert(1)&lt;/script&gt;&#34;"' in labelled


def test_ids_of_two_drawings_differ() -> None:
    ids = [
        {element.get("id") for element in ET.fromstring(drawing.svg(SPECS[name])).iter() if element.get("id")}
        for name in ("performance", "bars")
    ]
    assert not ids[0] & ids[1]


def test_the_same_drawing_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawing.svg(SPECS["map"])
    monkeypatch.setattr(drawing, "_converted", lambda spec: pytest.fail("drawn again"))
    assert drawing.svg(SPECS["map"]) is first


def test_the_picture_of_a_replay_tells_the_gain_and_marks_promotions() -> None:
    drawn = charts.figure_months(MONTHS)
    assert drawn.startswith("<svg") and "var(--" not in drawn
    assert "+0.0100 AUC, −0.0100 log loss a month on average" in drawn
    assert "Jun 2013: live 0.7800; v3 live" in drawn
    unknown = [{**MONTHS[0], "auc_live": None, "log_loss_live": None}]
    assert "No month has both." in charts.figure_months(unknown)
    assert charts.figure_months([]).startswith("<svg")


def test_each_version_says_its_values_and_the_last_ones_are_drawn() -> None:
    def said(bars: list[VersionBar]) -> list[str | None]:
        root = ET.fromstring(str(version_chart.version_chart(bars, "Rows by version")))
        return [element.get("aria-label") for element in root.iter() if element.get("role") == "graphics-symbol"]

    assert said(BARS) == [bar.text for bar in BARS]
    many = [VersionBar(str(i), 1, f"version {i}", False) for i in range(version_chart.SHOWN + 5)]
    assert said(many)[0] == "version 5" and len(said(many)) == version_chart.SHOWN
