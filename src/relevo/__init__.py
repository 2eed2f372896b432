"""Relevo brings machine-learning models to production and keeps them healthy."""

__version__ = "0.1.0"
