"""The verdict on what the gateway says of the versions that it was asked to load."""

from __future__ import annotations

from relevo.monitoring.loading import loading_finding


def test_a_version_that_is_loaded_or_no_longer_asked_for_resolves() -> None:
    assert loading_finding("delay", {1: ["ready", "ready"], 2: ["ready"]}, [1]).is_raised is False
    assert loading_finding("delay", {}, []).is_raised is False


def test_a_worker_that_is_still_loading_decides_nothing() -> None:
    assert loading_finding("delay", {1: ["ready"], 2: ["ready", "loading"]}, [1]).is_raised is None


def test_one_worker_that_refuses_is_enough_and_the_first_reason_is_given() -> None:
    finding = loading_finding("delay", {1: ["ready"], 2: ["loading", "failed: torn.", "failed: other."]}, [1])
    assert finding.is_raised is True
    assert finding.message == "The gateway refuses delay/2: torn. Version 1 answers as before."


def test_every_refused_version_is_named_and_those_that_answer() -> None:
    finding = loading_finding("delay", {2: ["failed: a."], 3: ["failed: b."], 4: ["ready"], 5: ["ready"]}, [4, 5])
    assert finding.message == (
        "The gateway refuses delay/2: a. The gateway refuses delay/3: b. Versions 4 and 5 answer as before."
    )


def test_before_the_first_route_nothing_is_said_of_what_answers() -> None:
    assert loading_finding("delay", {1: ["failed: a."]}, []).message == "The gateway refuses delay/1: a."
