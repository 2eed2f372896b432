"""What this package did, line by line in a file, so that a test can count it; a test fills in the folder."""

import time
from pathlib import Path

FOLDER = ""


def saw(what: str) -> None:
    """Add a line to the record."""
    if FOLDER:
        with Path(FOLDER, "record").open("a") as record:
            record.write(f"{what}\n")


def is_there(name: str) -> bool:
    """Whether the test has made the file of that name."""
    return bool(FOLDER) and Path(FOLDER, name).exists()


def wait_for(name: str) -> None:
    """Hold until the file of that name is there."""
    while not is_there(name):
        time.sleep(0.02)
