"""The command line. One thin module a command group; each only calls the API and prints what it answers."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``relevo``; errors end with one clear message and the exit status of their kind."""
    from relevo.cli.app import app
    from relevo.cli.terminal import show_error
    from relevo.errors import RelevoError

    try:
        app()
    except RelevoError as error:
        show_error(error)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
