"""The contract: what a team declares once about a model, in ``relevo.yaml``.

It is read with every mistake's line (``parsing``), travels with the team's package as one upload (``upload``), is
described by a child process (``child``), and is applied as a revision that never changes (``service``).
"""
