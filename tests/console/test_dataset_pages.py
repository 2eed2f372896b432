import re
from collections.abc import Iterator

import pytest
from page_rules import check_page, signed_in
from plane import Plane, serving
from playwright.sync_api import Browser, expect

from browser import fits, visit
from relevo.datasets.store import metadata
from relevo.platform.clock import utc_now

ROOT = "/datasets/flight-delay/flights"
PAGES = ["/datasets", ROOT, f"{ROOT}?version=2", f"{ROOT}/diff?before=1&after=2", f"{ROOT}/diff?before=3&after=0",
         f"{ROOT}/diff?before=2&after=2", f"{ROOT}/profiles?before=0&after=1",
         "/datasets/turnaround/weather"]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_a_page_renders_and_keeps_the_rules_of_every_page(data: Plane, path: str) -> None:
    check_page(signed_in(data).get(path))


def test_a_version_shows_checks_changes_schema_and_where_it_comes_from(data: Plane) -> None:
    text = signed_in(data, "vera").get(f"{ROOT}?version=2").text
    for part in (
        "the newest is 3", "1 of 2 fails", "7 more are quarantined", "delay|max", "{flight_id: 3, delay: 912.0}",
        "column distance is new (Float64)", "Datetime(us, UTC)", "deliver-flight-delay-r3", "8f3c2a91d04b", "maya",
        "02c4d1e8f7a9", 'href="/models/flight-delay/lineage?version=2"', f'href="{ROOT}/2/profile"',
        'aria-label="version 2: 800 rows, loaded 2026-01-21 00:00 UTC"',
    ):  # fmt: skip
        assert part in text, part
    newest = signed_in(data, "vera").get(ROOT).text
    assert "was Float64" in newest and "No sealed version of flight-delay was trained" in newest


def test_two_versions_are_compared_with_examples(data: Plane) -> None:
    text = signed_in(data).get(f"{ROOT}/diff?before=1&after=2").text
    assert "200 added, 0 removed, 6 changed, told by scheduled_at and flight_id" in text
    assert "and 197 more" in text and "added, Float64" in text and "No difference in carrier." in text
    assert re.search(r"flight_id: 1</small>-?\d+\.\d → 0.0", text)
    assert "Both versions hold the same rows." in signed_in(data).get(f"{ROOT}/diff?before=2&after=2").text


def test_mistakes_are_pages(data: Plane) -> None:
    browser = signed_in(data)
    assert "Did you mean flight-delay/flights?" in browser.get("/datasets/flight-delay/flihgts").text
    missing = browser.get(f"{ROOT}/9/profile")
    assert missing.status_code == 404 and "known versions: 3, 2, 1, 0" in missing.text
    only = browser.get("/datasets/turnaround/weather/diff")
    assert only.status_code == 404 and "has one version only" in only.text


def test_lineage_leads_to_the_version_of_the_data(season: Plane) -> None:
    text = signed_in(season).get("/models/flight-delay/lineage").text
    assert 'href="/datasets/flight-delay/weather?version=' in text


def test_rows_that_were_collected_are_said_to_be_and_not_offered(data: Plane) -> None:
    table = metadata.tables["dataset_versions"]
    is_it = (table.c.model == "flight-delay") & (table.c.source == "weather") & (table.c.version == 0)

    def set_collected(at: object) -> None:
        with data[1].state.transaction() as tx:
            tx.execute(table.update().where(is_it).values(collected_at=at))

    set_collected(utc_now())
    try:
        browser = signed_in(data)
        text = browser.get("/datasets/flight-delay/weather?version=0").text
        assert "The rows of this version were collected" in text and "/0/profile" not in text
        assert '<option value="0" disabled>' in browser.get("/datasets/flight-delay/weather").text
        assert browser.get("/datasets/flight-delay/weather/0/profile").status_code == 404
    finally:
        set_collected(None)


@pytest.fixture(scope="module")
def address(data: Plane) -> Iterator[str]:
    with serving(data[0]) as found:
        yield found


@pytest.mark.parametrize("options", [{"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}}])
def test_pages_load_without_an_error_and_fit_their_width(
    chromium: Browser, address: str, data: Plane, options: dict[str, object]
) -> None:
    with visit(chromium, address, data[2]["vera"], **options) as page:
        for path in PAGES:
            page.goto(path)
            assert fits(page), path


def test_a_profile_runs_in_a_sandbox_without_an_error(chromium: Browser, address: str, data: Plane) -> None:
    with visit(chromium, address, data[2]["vera"]) as page:
        page.goto(ROOT)
        page.get_by_role("link", name="Profile of version 3").click()
        expect(page.get_by_text("All 1,600 rows.")).to_be_visible(timeout=120_000)
        page.get_by_text("Stats", exact=True).click()
        expect(page.get_by_role("table").filter(has_text="Unique values")).to_be_visible()
        assert page.evaluate("self.origin") == "null"


def test_scripts_of_a_profile_reach_neither_relevo_nor_cookies(chromium: Browser, address: str, data: Plane) -> None:
    context = chromium.new_context(base_url=address)
    page = context.new_page()
    context.request.post("/login", form={"token": data[2]["vera"]}, max_redirects=0)
    page.goto(f"{ROOT}/3/profile")
    expect(page.get_by_text("All 1,600 rows.")).to_be_visible(timeout=120_000)
    for call in ("fetch('/api/me')", "fetch('http://127.0.0.1:9/')", "Promise.resolve().then(() => document.cookie)"):
        assert page.evaluate(f"{call}.then(() => 'reached', () => 'blocked')") == "blocked", call
    context.close()


def test_profiles_stand_side_by_side_and_forms_need_no_script(chromium: Browser, address: str, data: Plane) -> None:
    with visit(chromium, address, data[2]["vera"]) as page:
        page.goto(f"{ROOT}?version=1")
        page.get_by_label("Compare version").select_option("0")
        page.get_by_role("button", name="Profiles side by side").click()
        for version, rows in ((0, 400), (1, 600)):
            frame = page.frame_locator(f"iframe[title='Profile of version {version}']")
            expect(frame.get_by_text(f"All {rows} rows.")).to_be_visible(timeout=120_000)
    with visit(chromium, address, data[2]["vera"], java_script_enabled=False) as page:
        page.goto(f"{ROOT}?version=3")
        page.get_by_label("Compare version").select_option("1")
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.get_by_role("heading", name="flights, version 1 and 3")).to_be_visible()
