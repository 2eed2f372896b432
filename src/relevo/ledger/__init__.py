"""The ledger: every governed action, in order, append-only, each entry bound to the one before by its hash."""
