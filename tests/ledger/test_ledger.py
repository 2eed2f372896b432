import dataclasses
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from relevo.errors import Corrupted, Invalid
from relevo.identity.model import RELEVO, Principal, Role
from relevo.ledger.model import GENESIS, entry_hash
from relevo.ledger.service import Ledger
from relevo.platform.state import State

ANA = Principal("ana", Role.ENGINEER)


@pytest.fixture
def ledger(state: State) -> Ledger:
    return Ledger(state)


def append(state: State, ledger: Ledger, count: int) -> None:
    for number in range(1, count + 1):
        with state.transaction() as tx:
            ledger.append(tx, actor=ANA, action="applied", subject=f"model-{number}", facts={"number": number})


def tamper(state: State, statement: str) -> None:
    """Change the table as somebody with the database's own password could: triggers off first."""
    with state.transaction() as tx:
        if state.is_sqlite:
            for name in ("ledger_no_update", "ledger_no_delete", "ledger_in_order"):
                tx.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            tx.exec_driver_sql("ALTER TABLE ledger DISABLE TRIGGER USER")
        tx.exec_driver_sql(statement)


def test_an_entry_keeps_everything_and_links_to_the_one_before(state: State, ledger: Ledger) -> None:
    event_at = datetime(2013, 8, 15, 12, 30, 0, 123456, tzinfo=UTC)
    with state.transaction() as tx:
        first = ledger.append(tx, actor=ANA, action="applied", subject="flights")
        second = ledger.append(
            tx,
            actor=RELEVO,
            action="promoted",
            subject="flights/3",
            reason="gates passed",
            evidence="e" * 64,
            facts={"auc": 0.779, "by": [1, None], "at": event_at, "text": "Zürich"},
            event_at=event_at,
        )
    assert first.previous_hash == GENESIS
    assert second.previous_hash == first.hash
    assert ledger.entries() == [second, first]
    assert second.facts == {"auc": 0.779, "by": [1, None], "at": "2013-08-15T12:30:00.123456Z", "text": "Zürich"}
    assert (second.actor, second.role, second.event_at) == ("relevo", "system", event_at)
    assert ledger.verify() == 2
    assert ledger.head() == (2, second.hash)


def test_an_empty_ledger_is_whole(ledger: Ledger) -> None:
    assert ledger.verify() == 0
    assert ledger.entries() == []
    assert ledger.head() == (0, GENESIS)


def test_entries_are_paged_and_found_by_subject(state: State, ledger: Ledger) -> None:
    append(state, ledger, 5)
    newest = ledger.entries(limit=2)
    assert [entry.sequence for entry in newest] == [5, 4]
    assert [entry.sequence for entry in ledger.entries(limit=2, before=newest[-1].sequence)] == [3, 2]
    assert [entry.sequence for entry in ledger.entries("model-3")] == [3]


def test_a_step_is_recorded_once(state: State, ledger: Ledger) -> None:
    with state.transaction() as tx:
        first = ledger.append(tx, actor=ANA, action="promoted", subject="m/1", once=("deliver-m-1", "promote"))
    with state.transaction() as tx:
        again = ledger.append(tx, actor=ANA, action="promoted", subject="m/1", once=("deliver-m-1", "promote"))
        other = ledger.append(tx, actor=ANA, action="canary", subject="m/1", once=("deliver-m-1", "canary"))
    assert again == first
    assert other.sequence == 2
    assert ledger.verify() == 2


def test_a_transaction_that_fails_leaves_no_entry_and_no_gap(state: State, ledger: Ledger) -> None:
    append(state, ledger, 1)

    def fail() -> None:
        with state.transaction() as tx:
            ledger.append(tx, actor=ANA, action="applied", subject="lost")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    append(state, ledger, 1)
    assert [entry.sequence for entry in ledger.entries()] == [2, 1]
    assert ledger.verify() == 2


def test_a_text_that_a_database_cannot_keep_is_refused(state: State, ledger: Ledger) -> None:
    with pytest.raises(Invalid, match="NUL"), state.transaction() as tx:
        ledger.append(tx, actor=ANA, action="approved", subject="m/1", reason="a\0b")


def test_writers_at_the_same_time_make_one_chain(state: State, ledger: Ledger) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            append(state, ledger, 10)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert ledger.verify() == 40


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET reason = 'forged' WHERE sequence = 2",
        "DELETE FROM ledger WHERE sequence = 2",
        "DELETE FROM ledger",
    ],
)
def test_the_table_refuses_changes(state: State, ledger: Ledger, statement: str) -> None:
    append(state, ledger, 3)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), state.transaction() as tx:
        tx.exec_driver_sql(statement)
    assert ledger.verify() == 3


def test_the_table_refuses_replacement_and_truncation(state: State, ledger: Ledger) -> None:
    append(state, ledger, 3)
    statement = "INSERT OR REPLACE INTO ledger SELECT * FROM ledger WHERE sequence = 2"
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), state.transaction() as tx:
        tx.exec_driver_sql(statement if state.is_sqlite else "TRUNCATE ledger")
    assert ledger.verify() == 3


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE ledger SET reason = 'forged' WHERE sequence = 2", "entry 2 .* was changed"),
        ("UPDATE ledger SET facts = '{\"number\":9}' WHERE sequence = 3", "entry 3 .* was changed"),
        ("UPDATE ledger SET actor = 'eve' WHERE sequence = 1", "entry 1 .* was changed"),
        ("UPDATE ledger SET recorded_at = '2020-01-01 00:00:00.000000' WHERE sequence = 2", "entry 2 .* was changed"),
        ("UPDATE ledger SET workflow_id = 'w', step = 's' WHERE sequence = 2", "entry 2 .* was changed"),
        ("UPDATE ledger SET sequence = 9 WHERE sequence = 3", "entry 3 is missing"),
        ("DELETE FROM ledger WHERE sequence = 2", "entry 2 is missing"),
        ("DELETE FROM ledger WHERE sequence = 4", "entry 4 is missing"),
        ("DELETE FROM ledger", "entry 1 is missing"),
    ],
)
def test_tampering_is_found_and_named(state: State, ledger: Ledger, statement: str, found: str) -> None:
    append(state, ledger, 4)
    tamper(state, statement)
    with pytest.raises(Corrupted, match=found):
        ledger.verify()


def test_a_rehashed_entry_breaks_the_link_that_follows(state: State, ledger: Ledger) -> None:
    append(state, ledger, 3)
    second = ledger.entries("model-2")[0]
    forged = dataclasses.replace(second, reason="forged")
    tamper(state, f"UPDATE ledger SET reason = 'forged', hash = '{entry_hash(forged)}' WHERE sequence = 2")
    with pytest.raises(Corrupted, match="entry 3 does not follow"):
        ledger.verify()
