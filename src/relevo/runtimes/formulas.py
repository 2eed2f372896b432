"""Linear models of statsmodels that were fitted by formula, to a ``LinearModel``. Runs in children only.

A formula whose terms are single columns is a weight for each number and a table for each text; any other is refused.
"""

from __future__ import annotations

import re
from typing import Any

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes.linear import LinearModel, Number, Table
from relevo.runtimes.model import ColumnType, Link, Signature

_REGRESSIONS = ("OLS", "WLS", "GLS")
_CATEGORICAL = re.compile(r"C\((\w+)\b.*\)")


def design_of(model: Any) -> Any | None:
    """How patsy makes the columns of the model's matrix; None for what was not fitted by a formula of patsy."""
    data = getattr(getattr(model, "model", None), "data", None)
    design = getattr(data, "model_spec", None) or getattr(data, "design_info", None)  # the latter is of older versions
    return design if hasattr(design, "factor_infos") else None


def column_of(factor: Any) -> str:
    """``depot`` of the factors ``depot`` and ``C(depot)``; any other as it is written."""
    return _CATEGORICAL.sub(r"\1", str(factor.name()))


def linearise_formula(model: Any, signature: Signature) -> LinearModel:
    """``model``, results of statsmodels, as a ``LinearModel``; a row with a null or unseen text has no answer there.

    Raises:
        Invalid: Says which model or term is not supported.
    """
    import numpy as np

    kind, design = type(model.model).__name__, design_of(model)
    expected = ("Logit",) if signature.task is Task.CLASSIFICATION else _REGRESSIONS
    if kind not in expected or design is None:
        raise Invalid(f"{kind} of statsmodels is not a linear model by formula that is supported for {signature.task}")
    names = [column.name for column in signature.inputs]
    parameters = np.asarray(model.params, dtype=np.float64)
    intercept, numbers, tables = 0.0, [], []
    for term, subterms in design.term_codings.items():
        weights = parameters[design.term_slices[term]]
        if not term.factors:
            intercept = float(weights[0])
            continue
        [factor, *more] = term.factors
        name, info = column_of(factor), design.factor_infos[factor]
        if more or len(subterms) != 1 or name not in names:
            raise Invalid(f"the term {term.name()} is not one column")
        place = names.index(name)
        is_text = signature.inputs[place].type is ColumnType.TEXT
        if info.type == "categorical" and is_text:
            coded = subterms[0].contrast_matrices[factor].matrix @ weights
            values = ((str(value), (float(weight),)) for value, weight in zip(info.categories, coded, strict=True))
            tables.append(Table(place, tuple(values)))
        elif info.type == "numerical" and factor.name() == name and not is_text:
            numbers.append(Number(place, 0.0, 1.0, (float(weights[0]),)))
        else:
            raise Invalid(f"the term {term.name()} is not supported")
    link = Link.LOGISTIC if kind == "Logit" else Link.IDENTITY
    return LinearModel(link, (intercept,), tuple(numbers), tuple(tables))
