import stat
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from relevo.platform.clock import watermarks
from relevo.platform.state import State

AT = datetime(2013, 4, 1, 12, 30, 0, 123456, tzinfo=UTC)


def insert(state: State, endpoint: str, at: datetime = AT) -> None:
    with state.transaction() as tx:
        tx.execute(watermarks.insert().values(endpoint=endpoint, mode="replay", at=at, advanced_at=AT))


def count(tx: sa.Connection) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(watermarks)).scalar_one()


def test_a_time_comes_back_as_the_same_aware_utc_time(state: State) -> None:
    insert(state, "a", AT.astimezone(timezone(timedelta(hours=-5))))
    with state.read() as tx:
        found = tx.execute(sa.select(watermarks.c.at)).scalar_one()
    assert found == AT and found.tzinfo is UTC


def test_a_naive_time_is_refused(state: State) -> None:
    with pytest.raises(sa.exc.StatementError, match="must be aware"):
        insert(state, "a", AT.replace(tzinfo=None))


def test_a_transaction_is_kept_whole_or_not_at_all(state: State) -> None:
    insert(state, "a")

    def replace_all_by_nonsense() -> None:
        with state.transaction() as tx:
            tx.execute(watermarks.delete())
            tx.execute(watermarks.insert().values(endpoint="b", mode="wrong", at=AT, advanced_at=AT))

    with pytest.raises(sa.exc.IntegrityError):
        replace_all_by_nonsense()
    with state.read() as tx:
        assert count(tx) == 1


def test_a_read_sees_one_view_while_others_write(state: State) -> None:
    insert(state, "a")
    with state.read() as tx:
        assert count(tx) == 1
        writer = threading.Thread(target=insert, args=(state, "b"))
        writer.start()
        writer.join()
        assert count(tx) == 1
    with state.read() as tx:
        assert count(tx) == 2


def test_writers_that_read_first_wait_for_each_other(state: State) -> None:
    insert(state, "a")
    failures: list[Exception] = []

    def advance() -> None:
        try:
            for _ in range(20):
                with state.transaction() as tx:
                    at = tx.execute(sa.select(watermarks.c.at).with_for_update()).scalar_one()
                    tx.execute(watermarks.update().values(at=at + timedelta(seconds=1)))
        except Exception as error:
            failures.append(error)

    writers = [threading.Thread(target=advance) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with state.read() as tx:
        assert (failures, tx.execute(sa.select(watermarks.c.at)).scalar_one()) == ([], AT + timedelta(seconds=80))


def test_a_database_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = State(f"sqlite:///{tmp_path / 'home' / 'state.db'}")
    with store.transaction() as tx:
        tx.exec_driver_sql("CREATE TABLE t (x INTEGER)")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
    store.close()
    assert modes["state.db"] == modes["state.db-wal"] == 0o600


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def use(path: Path) -> None:
        store = State(f"sqlite:///{path}")
        try:
            with store.transaction() as tx:
                tx.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (x INTEGER)")
        except Exception as error:
            failures.append(error)
        store.close()

    for number in range(100):
        users = [threading.Thread(target=use, args=(tmp_path / f"{number}.db",)) for _ in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
    assert failures == []
