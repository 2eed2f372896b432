"""What the labels route makes of a value, by the classes that the endpoint's version knows."""

from __future__ import annotations

import pytest

from relevo.errors import Invalid
from relevo.serving.labelling import _number


@pytest.mark.parametrize(
    ("value", "classes", "stored"),
    [
        (12.5, (), 12.5),
        ("yes", ("no", "yes"), 1.0),
        (0, ("no", "yes"), 0.0),
        (True, ("false", "true"), 1.0),
        (1, ("0", "1"), 1.0),
        (3, ("1", "2", "3"), 2.0),  # a rating of 3 is not the fourth class
        ("3", ("1", "2", "3"), 2.0),
        (0.5, ("0.5", "1.5"), 0.0),
    ],
)
def test_a_class_is_named_by_its_text_its_place_or_its_value(
    value: float | str, classes: tuple[str, ...], stored: float
) -> None:
    assert _number(value, classes, "labels[0].value") == stored


@pytest.mark.parametrize(
    ("value", "classes"),
    [("late", ()), ("maybe", ("no", "yes")), (2, ("no", "yes")), (0, ("1", "2")), (0.5, ("a", "b"))],
)
def test_what_names_no_class_is_refused_with_the_classes(value: float | str, classes: tuple[str, ...]) -> None:
    with pytest.raises(Invalid) as error:
        _number(value, classes, "labels[0].value")
    assert error.value.field == "labels[0].value"
    assert all(name in error.value.message for name in classes)
