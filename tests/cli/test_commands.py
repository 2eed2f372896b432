"""The commands without a running Relevo: help, arguments, settings, what the machine refuses."""

from __future__ import annotations

import os
import re
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typing_commands import Terminal

from relevo.cli.client import CREDENTIALS, Credentials, credentials, save_credentials
from relevo.cli.reference import reference
from relevo.platform.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"
HEAVY = ("httpx", "pydantic", "sqlalchemy", "polars", "fastapi", "mlflow", "dbos", "pandas", "numpy", "yaml")


def test_the_reference_is_what_the_commands_say() -> None:
    assert PAGE.read_text() == reference(), "run: python -m relevo.cli.reference > docs/reference/cli.md"


def test_every_command_option_and_argument_is_explained() -> None:
    for line in reference().splitlines():
        if line.startswith("| "):
            assert not line.endswith("|  |"), line
            assert "None" not in line, line


def test_help_imports_nothing_heavy(elsewhere: Terminal) -> None:
    program = "import sys, relevo.cli.app; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    assert elsewhere.run([sys.executable, "-c", program, *HEAVY]).out == "[]\n"
    bare = "import sys, relevo; print([name for name in sys.modules if name.startswith('relevo.')])"
    assert elsewhere.run([sys.executable, "-c", bare]).out == "[]\n"


def test_help_shows_each_command_in_full(elsewhere: Terminal) -> None:
    shown = elsewhere.relevo("--help", COLUMNS="60")
    assert shown.status == 0
    assert "..." not in shown.out.partition("Commands:")[2]
    assert elsewhere.relevo("--version").out.startswith("relevo ")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["statsu"], 2, "Did you mean 'status'?"),
        (["token", "craete"], 2, "Did you mean 'create'?"),
        (["status"], 3, "There is no token"),
        (["history", "m", "--at", "yesterday"], 3, "There is no token"),
        (["apply"], 4, "There is no relevo.yaml"),
        (["logs", "control"], 4, "There are: none."),
        (["principal", "create", "ruth", "--role", "boss"], 2, "reviewer"),
        (["init", "Shop"], 2, "A model's name has small letters"),
        (["init", "shop", "--from", "orders.csv"], 2, "--from FILE and --label COLUMN go together"),
        (["init", "shop", "--from", "orders.csv", "--label", "late"], 2, "There is no file orders.csv."),
        (["up", "--port", "70000"], 2, "RELEVO_PORT: Input should be less than or equal to 65535"),
    ],
)
def test_a_mistake_is_one_message_and_its_exit_status(
    elsewhere: Terminal, arguments: list[str], status: int, message: str
) -> None:
    failed = elsewhere.relevo(*arguments)
    assert (failed.status, message in failed.err) == (status, True), failed
    assert not failed.out


def test_a_wrong_setting_is_named(elsewhere: Terminal) -> None:
    failed = elsewhere.relevo("status", RELEVO_PORT="many")
    assert (failed.status, failed.err.startswith("Error: RELEVO_PORT: ")) == (2, True)


def test_an_address_where_nothing_answers_is_named(elsewhere: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failed = elsewhere.relevo("status", RELEVO_TOKEN="rlv_x", RELEVO_URL=f"http://127.0.0.1:{port}")
    assert failed.status == 6
    assert f"http://127.0.0.1:{port} does not answer" in failed.err
    assert "Is `relevo up` running?" in failed.err


def test_a_port_in_use_is_named_with_its_owner_and_leaves_no_trace(elsewhere: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = elsewhere.relevo("up", "--port", str(port))
        assert failed.status == 5
        assert f"Port {port} on 127.0.0.1 is in use by" in failed.err
        assert f"(process {os.getpid()})" in failed.err
        assert "set RELEVO_PORT to a free port" in failed.err
        examined = elsewhere.relevo("doctor", RELEVO_PORT=str(port))
        assert examined.status == 1
        assert f"(process {os.getpid()}); stop it or set RELEVO_PORT" in examined.out


def test_a_state_store_that_does_not_answer_is_named_without_its_password(elsewhere: Terminal) -> None:
    url = "postgresql://relevo:hunter2@127.0.0.1:1/state"
    failed = elsewhere.relevo("up", "--port", "18621", "--gateway-port", "18622", RELEVO_STATE_URL=url)
    assert failed.status == 6
    assert "the database of RELEVO_STATE_URL, cannot be used" in failed.err
    examined = elsewhere.relevo("doctor", RELEVO_STATE_URL=url)
    assert "postgresql://relevo:***@127.0.0.1:1/state does not answer" in examined.out
    assert "hunter2" not in failed.err + examined.out


def test_the_doctor_looks_at_redis(elsewhere: Terminal, redis_place: str) -> None:
    examined = elsewhere.relevo("doctor", RELEVO_ONLINE_URL=redis_place)
    assert re.search(r"online store\W+Redis [\d.]+ answers, noeviction", examined.out), examined.out
    away = elsewhere.relevo("doctor", RELEVO_ONLINE_URL="redis://:hunter2@127.0.0.1:1/0")
    assert "Redis 127.0.0.1:1 cannot be used" in away.out
    assert "hunter2" not in away.out
    wrong = elsewhere.relevo("doctor", RELEVO_ONLINE_URL="memcached://127.0.0.1")
    assert "got memcached://" in wrong.out


def test_up_and_doctor_name_the_extra_that_redis_needs(
    elsewhere: Terminal, tmp_path_factory: pytest.TempPathFactory
) -> None:
    without = tmp_path_factory.mktemp("without")
    (without / "sitecustomize.py").write_text(
        "import sys\nsys.modules['redis'] = None  # as if it were not installed\n"
    )
    where = {"PYTHONPATH": str(without), "RELEVO_ONLINE_URL": "redis://127.0.0.1:1/0"}
    needed = "RELEVO_ONLINE_URL names Redis, which needs an extra: pip install 'relevo[redis]'."
    failed = elsewhere.relevo("up", "--port", "18621", "--gateway-port", "18622", **where)
    assert (failed.status, failed.err) == (6, f"Error: {needed}\n")
    assert not (elsewhere.folder / ".relevo").exists()
    examined = elsewhere.relevo("doctor", **where)
    assert examined.status == 1
    assert needed in examined.out


def test_up_refuses_an_online_store_of_another_kind(elsewhere: Terminal) -> None:
    ports = ("--port", "18621", "--gateway-port", "18622")
    failed = elsewhere.relevo("up", *ports, RELEVO_ONLINE_URL="memcached://127.0.0.1")
    assert (failed.status, "got memcached://" in failed.err) == (2, True)


def test_credentials_are_never_read_in_half(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    written = [Credentials("http://127.0.0.1:1", "http://127.0.0.1:2", str(number) * 5_000) for number in (1, 2)]
    save_credentials(settings, written[0])

    def write() -> None:
        for number in range(500):
            save_credentials(settings, written[number % 2])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            assert credentials(settings) in written
        writing.result()
    assert [path.name for path in settings.root.iterdir()] == [CREDENTIALS]


def test_credentials_that_were_spoilt_are_named(elsewhere: Terminal) -> None:
    (elsewhere.folder / ".relevo").mkdir()
    (elsewhere.folder / ".relevo/cli.json").write_text("[")
    failed = elsewhere.relevo("status")
    assert (failed.status, "cli.json is not what `relevo up` wrote" in failed.err) == (2, True)
