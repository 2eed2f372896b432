"""The page of a model's feature views."""

from __future__ import annotations

from plane import Browser, Plane


def page(plane: Plane, name: str = "admin") -> str:
    browser = Browser(plane[0])
    browser.sign_in(plane[2][name])
    return browser.get("/models/flight-delay/features").text


def test_the_page_shows_how_fresh_each_view_is_and_who_uses_it(season: Plane) -> None:
    text = page(season)
    rows = {
        name: text.split(f'<th scope="row">{name}<small>')[1].split("</tr>")[0] for name in ("weather", "previous_leg")
    }
    assert "fresh</span>" in rows["weather"]
    assert "stale</span>" in rows["previous_leg"]
    assert "not filled yet" not in rows["weather"]
    assert "no limit" in text.split('<th scope="row">waiting_line<small>')[1]
    assert "7 versions in all" in rows["weather"]
    assert "100 %" in rows["weather"]


def test_the_page_shows_what_the_last_proof_found_and_why(season: Plane) -> None:
    text = page(season)
    assert "2 different" in text
    assert "2 source: the sources give other rows today than were materialised." in text
    assert "JFK" in text and "14.25" in text
    assert "Values behind" in text


def test_only_who_may_operate_can_ask_for_a_proof(season: Plane) -> None:
    assert "Prove it now" in page(season)
    assert "Prove it now" not in page(season, "ruth")
