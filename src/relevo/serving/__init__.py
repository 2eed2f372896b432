"""Endpoints: which versions of a model answer, in which shares, and the gateway processes that answer.

``service.Serving`` belongs to the control plane: it records routes and placements and reads what the gateway reports.
``worker`` is the gateway's process; it follows the recorded routes and never calls the control plane.
"""
