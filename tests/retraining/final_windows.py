"""Final windows of a model, as monitoring records them."""

from datetime import timedelta

from release_world import BEGIN

from relevo.monitoring.model import Estimate, Window, WindowState

WEEK = timedelta(days=7)


def final_window(endpoint: str, number: int, estimate: Estimate, *, version: int, revision: int = 1) -> Window:
    """Week ``number`` (from 1): 1,000 labelled answers of ``version``, and what its AUC was."""
    return Window(
        endpoint=endpoint,
        start=BEGIN + (number - 1) * WEEK,
        end=BEGIN + number * WEEK,
        revision=revision,
        state=WindowState.FINAL,
        predictions=1000,
        failed=0,
        labels=1000,
        no_outcome=0,
        label_coverage=1.0,
        label_mean=0.2,
        version=version,
        metrics={"roc_auc": estimate},
        by_version={version: {"roc_auc": estimate}},
        slices={},
        reference={},
        performance_drop=None,
        is_drop_significant=False,
        drift=(),
        drift_share=0.0,
        quality=(),
    )
