"""What people call a dataset: ``MODEL/SOURCE``, or ``SOURCE`` where only one model has it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relevo.errors import Invalid, NotFound, nearest


def find(name: str, known: Iterable[tuple[str, str]], model: str | None = None) -> tuple[str, str]:
    """Model and source of the dataset that ``name`` means.

    Args:
        name: ``flights`` or ``flight-delay/flights``.
        known: Model and source of each dataset that there is.
        model: Narrows it down to one model.

    Raises:
        NotFound: There is none; the hint names the nearest, or what there is.
        Invalid: Several models have a source of that name.
    """
    left, slash, right = name.rpartition("/")
    wanted, source = (left, right) if slash else (model, name)
    if slash and model is not None and left != model:
        raise Invalid(f"The dataset {name} is one of the model {left}, and {model} was asked for.")
    datasets = sorted(set(known))
    found = [one for one in datasets if one[1] == source and wanted in {None, one[0]}]
    if len(found) == 1:
        return found[0]
    if found:
        names = [f"{model}/{source}" for model, source in found]
        raise Invalid(f"Several models have a dataset {source!r}.", hint=f"Name one of them: {', '.join(names)}.")
    shown = f"{wanted}/{source}" if wanted else source
    raise NotFound(f"There is no dataset {shown}.", hint=_instead(source, wanted, datasets))


def _instead(source: str, model: str | None, datasets: Sequence[tuple[str, str]]) -> str:
    if not datasets:
        return "None has been loaded yet: a training run loads the sources of its model."
    models = {one[0] for one in datasets}
    if model is not None and model not in models:
        near = nearest(model, models)
        said = f"Did you mean {near}?" if near else f"Models with datasets: {', '.join(sorted(models))}."
        return said if near is None or (near, source) not in datasets else f"Did you mean {near}/{source}?"
    here = [one for one in datasets if model in {None, one[0]}]
    near = nearest(source, {one[1] for one in here})
    names = [f"{one[0]}/{one[1]}" for one in here if near in {None, one[1]}]
    return f"Did you mean {' or '.join(names)}?" if near else f"There are: {', '.join(names)}."
