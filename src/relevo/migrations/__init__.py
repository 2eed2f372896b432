"""Alembic migrations of the state store. ``relevo up`` runs them before anything else starts."""
