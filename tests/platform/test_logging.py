import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.platform.logging import configure_logging, redact
from relevo.platform.settings import Settings

TOKEN = "rlv_" + "a" * 43


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # pytest's own are put back below, unclosed
    try:
        configure_logging(Settings(home=tmp_path), "control")
        yield tmp_path / "logs" / "control.log"
    finally:
        logging.captureWarnings(capture=False)
        for handler in root.handlers:
            handler.close()
        root.handlers = handlers
        root.setLevel(level)


def test_a_line_has_time_level_logger_and_message(log_file: Path) -> None:
    logging.getLogger("relevo.test").warning("worker %d is late", 3)
    line = log_file.read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING relevo\.test worker 3 is late\n", line)


def test_tokens_are_taken_out_of_messages_arguments_and_tracebacks(log_file: Path) -> None:
    try:
        raise ValueError(TOKEN)
    except ValueError:
        logging.getLogger("relevo.test").exception("used %s", TOKEN)
    text = log_file.read_text()
    assert "Traceback" in text
    assert TOKEN not in text
    assert text.count("rlv_***") >= 2


def test_passwords_of_urls_are_taken_out() -> None:
    assert redact("at postgresql://u:secret@host/db") == "at postgresql://u:***@host/db"
    assert redact("http://127.0.0.1:8420/console") == "http://127.0.0.1:8420/console"
