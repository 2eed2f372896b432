"""Apply, approve, live: as a reviewer sees it, in a real browser over the real processes."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect
from running import Relevo
from team import BEGINS, Project

from browser import open_chromium, visit


def test_a_reviewer_approves_in_the_console_and_the_version_goes_live(
    relevo: Relevo, make_project: Callable[[str], Project]
) -> None:
    project = make_project("browsed")
    relevo.replay(project.model, BEGINS)
    release = relevo.apply(project.folder)
    relevo.await_state(release, "waiting_for_approval")
    with open_chromium() as chromium, visit(chromium, relevo.url, relevo.reviewer.credentials.token) as page:
        page.get_by_role("link", name="Approvals").click()
        page.get_by_role("link", name=f"{project.model} v1").click()
        expect(page.get_by_role("heading", name="This version waits for approval")).to_be_visible()
        page.get_by_label("Reason, for the ledger").fill("The gates passed, and the slices are even.")
        page.get_by_role("button", name="Approve v1").click()
        relevo.await_state(release, "live")
        page.goto(f"/models/{project.model}")
        expect(page.get_by_text("the champion is in production")).to_be_visible()
        page.get_by_role("link", name="Ledger").click()
        expect(page.get_by_text("The gates passed, and the slices are even.").first).to_be_visible()
    approved = [entry for entry in relevo.ledger(project.model) if entry["action"] == "release approved"]
    assert [entry["actor"] for entry in approved] == [relevo.reviewer.get("/api/me")["name"]]
