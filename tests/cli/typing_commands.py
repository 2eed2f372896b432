"""Types commands as somebody does in a folder, and reads what they print."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from running import PATIENCE_SECONDS


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Terminal:
    """Commands in a folder, with the variables that somebody has set."""

    folder: Path
    variables: dict[str, str]

    def relevo(self, *arguments: str, **variables: str) -> Result:
        """``relevo ARGUMENTS``; further variables for this one."""
        return self.run([sys.executable, "-m", "relevo", *arguments], **variables)

    def bash(self, line: str) -> Result:
        """A line as it is pasted into a shell."""
        return self.run(["bash", "-c", line], PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def run(self, command: list[str], **variables: str) -> Result:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RELEVO_")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=kept | self.variables | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)
