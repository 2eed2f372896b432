"""What the console shows of a version that shadows the champion."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from page_rules import check_page, signed_in
from plane import installation
from season import MODEL, plant

from relevo.app.services import Services
from relevo.console.wording import percent
from relevo.platform.clock import utc_now
from relevo.serving import heartbeats
from relevo.serving.model import LATENCY_EDGES_MS, Arm, Heartbeat, ShadowArm, ShadowCounters


def shadowed(services: Services) -> None:
    """The season, and version 7 in the shadow of version 6."""
    plant(services)
    with services.state.transaction() as tx:
        services.serving.place(tx, MODEL, 7, services.registry.version(MODEL, 7, tx).bundle)
        services.serving.set_route(
            tx,
            MODEL,
            [Arm(6, 100)],
            reason="shadow: copies of 50% of the requests to version 7",
            set_by="relevo",
            effective_event_at=services.clock.now(MODEL, tx),
            shadow=ShadowArm(7, 0.5),
        )
    latency = [0] * (len(LATENCY_EDGES_MS) + 1)
    latency[6] = 1200
    counted = ShadowCounters(
        requests=1200,
        failed=3,
        dropped=17,
        compared_rows=1197,
        decided_rows=1197,
        changed_rows=12,
        difference_total=1197 * 0.0123,
        latency=tuple(latency),
    )
    beat = Heartbeat(
        1,
        os.getpid(),
        "boot1",
        utc_now() + timedelta(hours=1),
        loaded={MODEL: {6: "ready"}},
        shadows={MODEL: {7: counted}},
    )
    heartbeats.write(services.settings.folder("gateway"), beat)


def test_pages_show_what_a_shadow_makes_of_the_traffic(tmp_path: Path) -> None:
    with installation(tmp_path, shadowed) as plane:
        browser = signed_in(plane)
        for path in (f"/models/{MODEL}", f"/models/{MODEL}/versions/7"):
            answer = browser.get(path)
            check_page(answer)
            text = answer.text
            for part in (
                "1,197",
                "17 more were dropped",
                percent(0.0025, 2),
                "0.0123",
                percent(1185 / 1197, 2),
                "Nobody got its answers",
            ):
                assert part in text, (path, part)
        overview = " ".join(browser.get(f"/models/{MODEL}").text.split())
        assert 'versions/6">v6</a> in memory (2 of 2 workers)</li>' in overview
        assert (
            'versions/7">v7</a> in memory (1 of 2 workers), out of memory until it is asked (1 of 2 workers)</li>'
            in overview
        )
        assert "v6, shadow v7" in browser.get(f"/models/{MODEL}").text
        assert f"copies of {percent(0.5)} to" in browser.get(f"/models/{MODEL}/releases").text
        assert "Nobody got its answers" not in browser.get(f"/models/{MODEL}/versions/6").text
