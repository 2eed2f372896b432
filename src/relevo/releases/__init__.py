"""A release brings a version to production: gates on evidence, approval by a second person, canary, or back again.

Only this concept sets routes and stages.
"""
