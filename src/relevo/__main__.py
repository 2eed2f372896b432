"""``python -m relevo`` is the command ``relevo``."""

from relevo.cli import main

main()
