"""Identity: principals, their roles, the tokens that programs send and the sessions that the console opens."""
