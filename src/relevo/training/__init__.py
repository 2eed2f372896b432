"""Training: one run takes a contract at an event time to an evaluated, packed candidate.

Everything that touches a team's code or data runs in a child process (``child``), step by step, with files in the run's
folder between the steps; the service turns each step into a durable one. A team's function
``train(training: TrainingSet, params: dict)`` gets what was known when asked, and gives a fitted estimator.
"""

from relevo.training.model import TrainingSet

__all__ = ["TrainingSet"]
