"""When to train again: the contract's rule, judged on each final window, inside its guards."""
