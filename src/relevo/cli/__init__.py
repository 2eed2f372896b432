"""The command line. One thin module a command group; each only calls the API and prints what it answers."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relevo.errors import RelevoError

#: A command that was interrupted, as shells count it.
INTERRUPTED = 130


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
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        show_error(machine_error(error))
        sys.exit(machine_error(error).exit_status)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def machine_error(error: OSError) -> RelevoError:
    """What the operating system refused, in our words: a full disk, a folder that may not be written."""
    from relevo.errors import RelevoError, Unavailable

    where = "" if error.filename is None else f": {error.filename}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Unavailable(f"The disk is full{where}.", hint="Make room, or set RELEVO_HOME to a folder on another.")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return RelevoError(f"{error.strerror}{where}.", hint="Set RELEVO_HOME to a folder that you may write.")
    return RelevoError(f"{error.strerror or error}{where}.")
