"""The watch as a durable workflow, beside a real collector."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relevo.errors import Unavailable
from relevo.monitoring.model import AlertKind, Window, WindowState
from relevo.monitoring.watch import Watch
from relevo.platform.activities import ActivityState
from relevo.platform.workflows import Workflows

BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WAIT = timedelta(hours=30)
ENDPOINT = "delay"

World = Any
Traffic = Any


class Watched:
    """A world whose windows are watched; ``finals`` are those that were handed on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.finals: list[Window] = []
        self.workflows = Workflows(world.settings, world.state, poll_seconds=0.05)
        self.refusals = 0
        self.watch = Watch(
            world.state,
            monitoring=world.monitoring,
            workflows=self.workflows,
            log=world.log,
            on_final=self._on_final,
        )
        self.workflows.launch()

    def run(self, until: datetime) -> list[str]:
        """Advance, and wait until the watch and all that follow from it are done."""
        self.world.advance(until)
        started = self.watch.start_due_watches(ENDPOINT)
        done: list[str] = []
        while started:
            done += started
            status = self.workflows.wait(started[0], 20)
            assert status.state != "running"
            started = status.output["next"] if status.state == "succeeded" else []
        return done

    def _on_final(self, window: Window) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ValueError("the rule cannot be judged")
        self.finals.append(window)


@pytest.fixture
def watched(local_world: World) -> Iterator[Watched]:
    made = Watched(local_world)
    yield made
    made.workflows.close()


def test_nothing_is_started_when_nothing_is_due(watched: Watched) -> None:
    assert watched.watch.start_due_watches(ENDPOINT) == []
    assert watched.watch.start_due_watches("unknown") == []


def test_each_window_is_watched_twice_and_handed_on_once(watched: Watched) -> None:
    watched.world.send(0)
    assert watched.run(BEGIN + WEEK) == ["watch-delay-20130408T000000Z-provisional"]
    assert watched.finals == []
    assert watched.run(BEGIN + WEEK + WAIT) == ["watch-delay-20130408T000000Z-final"]
    assert watched.finals == watched.world.monitoring.windows(ENDPOINT)
    assert watched.run(BEGIN + WEEK + WAIT) == []
    assert watched.workflows.activities.open() == []


def test_windows_that_wait_are_watched_in_their_order(watched: Watched) -> None:
    for week in range(3):
        watched.world.send(week)
    started = watched.run(BEGIN + 3 * WEEK)
    assert started == [
        "watch-delay-20130408T000000Z-final",
        "watch-delay-20130415T000000Z-final",
        "watch-delay-20130422T000000Z-provisional",
    ]
    assert [window.end for window in watched.finals] == [BEGIN + WEEK, BEGIN + 2 * WEEK]


def test_starting_again_while_a_watch_runs_starts_no_second_one(watched: Watched, monkeypatch: Any) -> None:
    watched.world.send(0)
    go_on = threading.Event()
    flush = watched.world.log.flush
    monkeypatch.setattr(watched.world.log, "flush", lambda seconds: (go_on.wait(10), flush(seconds)))
    watched.world.advance(BEGIN + WEEK)
    first = watched.watch.start_due_watches(ENDPOINT)
    assert watched.watch.start_due_watches(ENDPOINT) == first
    (activity,) = watched.workflows.activities.open()
    assert activity.state is ActivityState.WORKING
    go_on.set()
    assert watched.workflows.wait(first[0], 20).state == "succeeded"
    assert len(watched.world.monitoring.revisions(ENDPOINT, BEGIN + WEEK)) == 1


def test_a_watch_that_fails_says_so_and_is_tried_again(watched: Watched, monkeypatch: Any) -> None:
    watched.world.send(0)
    analyse = watched.world.monitoring.analyse
    failures = [Unavailable("the table is away")] * 4

    def flaky(*window: Any) -> Window:
        if failures:
            raise failures.pop()
        return analyse(*window)

    monkeypatch.setattr(watched.world.monitoring, "analyse", flaky)
    monkeypatch.setattr("relevo.platform.workflows._RETRY_SECONDS", 0.01)
    assert watched.run(BEGIN + WEEK) == ["watch-delay-20130408T000000Z-provisional"]
    (alert,) = watched.world.monitoring.alerts(open_only=True)
    assert alert.kind is AlertKind.WATCH
    assert "provisional window of delay to 2013-04-08T00:00:00+00:00 could not be analysed" in alert.message
    assert "the table is away" in alert.message
    assert watched.run(BEGIN + WEEK) == ["watch-delay-20130408T000000Z-provisional-again-2"]
    assert watched.world.monitoring.alerts(open_only=True) == []


def test_late_labels_revise_earlier_windows_when_the_next_becomes_final(watched: Watched, traffic: Traffic) -> None:
    rows = watched.world.send(0, traffic(labelled=0.0))
    watched.run(BEGIN + WEEK + WAIT)
    watched.world.label([(rows["prediction_id"][0], 1.0, BEGIN + WEEK + WAIT + timedelta(hours=1))])
    watched.world.send(1)
    watched.run(BEGIN + 2 * WEEK + WAIT)
    first = watched.world.monitoring.revisions(ENDPOINT, BEGIN + WEEK)
    assert [(one.state, one.labels) for one in first] == [(WindowState.FINAL, 0), (WindowState.FINAL, 1)]
