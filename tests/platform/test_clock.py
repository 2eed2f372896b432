from datetime import UTC, datetime, timedelta

import pytest

from relevo.errors import Conflict, Invalid
from relevo.platform.clock import EventClock
from relevo.platform.state import State

WALL = datetime(2026, 1, 1, tzinfo=UTC)
APRIL = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture
def clock(state: State) -> EventClock:
    return EventClock(state, wall=lambda: WALL)


def test_event_time_is_the_wall_clock_until_a_replay_starts(clock: EventClock) -> None:
    assert clock.now("flights") == WALL
    assert not clock.is_replay("flights")
    assert clock.replays() == {}


def test_a_replay_alone_moves_its_endpoint(state: State, clock: EventClock) -> None:
    with state.transaction() as tx:
        clock.start_replay(tx, "flights", APRIL)
        clock.advance(tx, "flights", APRIL + timedelta(hours=1))
        assert clock.now("flights", tx) == APRIL + timedelta(hours=1)
    assert clock.now("flights") == APRIL + timedelta(hours=1)
    assert clock.is_replay("flights")
    assert clock.replays() == {"flights": APRIL + timedelta(hours=1)}
    assert clock.now("other") == WALL


def test_the_watermark_never_goes_back_and_may_repeat(state: State, clock: EventClock) -> None:
    with state.transaction() as tx:
        clock.start_replay(tx, "flights", APRIL)
        clock.advance(tx, "flights", APRIL)
        clock.start_replay(tx, "flights", APRIL)
    with pytest.raises(Conflict, match="never goes back"), state.transaction() as tx:
        clock.advance(tx, "flights", APRIL - timedelta(microseconds=1))
    assert clock.now("flights") == APRIL


def test_only_a_replay_can_be_advanced(state: State, clock: EventClock) -> None:
    with pytest.raises(Conflict, match="wall clock"), state.transaction() as tx:
        clock.advance(tx, "flights", APRIL)


def test_a_naive_time_is_refused(state: State, clock: EventClock) -> None:
    with pytest.raises(Invalid, match="offset"), state.transaction() as tx:
        clock.start_replay(tx, "flights", APRIL.replace(tzinfo=None))
