"""The console in a real browser: no console error, no request that leaves this host, better with JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from plane import Plane, serving
from playwright.sync_api import Browser, expect

from browser import fits, visit
from relevo.platform.activities import ActivityState

PAGES = [
    "/", "/datasets", "/datasets/flight-delay/flights", "/approvals", "/alerts", "/ledger", "/models/flight-delay",
    *(
        f"/models/flight-delay/{path}"
        for path in (
            "windows", "windows/2013-06-10T00:00:00Z", "versions", "versions/7", "releases", "retraining", "features",
            "lineage",
            "contract",
        )
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def address(season: Plane) -> Iterator[str]:
    """The season's pages over real HTTP; its workflows are not started."""
    with serving(season[0]) as found:
        yield found


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}}])
def test_every_page_loads_without_an_error_and_fits_its_width(
    chromium: Browser, address: str, season: Plane, options: dict[str, Any]
) -> None:
    with visit(chromium, address, season[2]["admin"], **options) as page:
        for path in PAGES:
            page.goto(path)
            expect(page.get_by_role("navigation", name="Main")).to_be_visible()
            assert fits(page), path


def test_a_reviewer_reads_the_evidence_and_finds_the_form(chromium: Browser, address: str, season: Plane) -> None:
    with visit(chromium, address, season[2]["ruth"]) as page:
        page.get_by_role("link", name="Approvals").click()
        page.get_by_role("link", name="flight-delay v7").click()
        expect(page.get_by_role("heading", name="This version waits for approval")).to_be_visible()
        expect(page.get_by_role("button", name="Approve v7")).to_be_enabled()
        expect(page.get_by_label("Reason, for the ledger")).to_be_editable()
        page.get_by_role("link", name="lineage", exact=True).click()
        expect(page.get_by_text("From the data to v7's traffic")).to_be_visible()


def test_a_chart_shows_values_to_pointer_and_keyboard(chromium: Browser, address: str, season: Plane) -> None:
    with visit(chromium, address, season[2]["vera"]) as page:
        page.goto("/models/flight-delay/windows")
        chart = page.get_by_role("group", name="roc_auc by window")
        chart.locator("[aria-label][role='graphics-symbol']").nth(3).hover()
        hint = page.locator(".hint")
        expect(hint).to_contain_text("22 Apr to 29 Apr 2013: roc_auc 0.7")
        page.keyboard.press("Escape")
        expect(hint).to_be_hidden()
        chart.focus()
        page.keyboard.press("Home")
        expect(hint).to_contain_text("1 Apr to 8 Apr 2013")
        page.keyboard.press("ArrowRight")
        expect(hint).to_contain_text("8 Apr to 15 Apr 2013")
        page.keyboard.press("Tab")
        expect(hint).to_be_hidden()


def test_the_page_follows_what_goes_on(chromium: Browser, address: str, season: Plane) -> None:
    activities = season[1].workflows.activities
    with visit(chromium, address, season[2]["vera"]) as page:
        activities.begin("another", "deliver", "flight-delay")
        activities.set("another", ActivityState.WORKING, "training flight-delay: fit")
        try:
            expect(page.get_by_role("status").filter(has_text="fit")).to_be_visible(timeout=10_000)
            expect(page.get_by_role("table")).to_contain_text("training flight-delay: fit", timeout=15_000)
        finally:
            activities.set("another", ActivityState.DONE)


def test_pages_work_without_javascript(chromium: Browser, address: str, season: Plane) -> None:
    with visit(chromium, address, season[2]["maya"], java_script_enabled=False) as page:
        page.goto("/models/flight-delay/windows")
        expect(page.get_by_role("group", name="roc_auc by window")).to_be_visible()
        page.goto("/alerts")
        page.get_by_text("Resolve").first.click()
        page.get_by_label("What was found or done").first.fill("looked at it")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
