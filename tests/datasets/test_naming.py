import pytest

from relevo.datasets.naming import find
from relevo.errors import Invalid, NotFound

KNOWN = [("flight-delay", "flights"), ("flight-delay", "weather"), ("turnaround", "weather")]


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("flights", None, ("flight-delay", "flights")),
        ("flight-delay/flights", None, ("flight-delay", "flights")),
        ("weather", "turnaround", ("turnaround", "weather")),
        ("turnaround/weather", "turnaround", ("turnaround", "weather")),
    ],
)
def test_a_dataset_is_found_by_its_source_and_where_needed_its_model(
    name: str, model: str | None, expected: tuple[str, str]
) -> None:
    assert find(name, KNOWN, model) == expected


def test_a_name_that_several_models_use_is_refused_with_all_of_them() -> None:
    with pytest.raises(Invalid, match="Several models have a dataset 'weather'") as refused:
        find("weather", KNOWN)
    assert refused.value.hint == "Name one of them: flight-delay/weather, turnaround/weather."
    with pytest.raises(Invalid, match="is one of the model flight-delay, and turnaround was asked for"):
        find("flight-delay/weather", KNOWN, "turnaround")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("flihgts", "There is no dataset flihgts.", "Did you mean flight-delay/flights?"),
        ("wether", "There is no dataset wether.", "Did you mean flight-delay/weather or turnaround/weather?"),
        ("flight-dely/flights", "There is no dataset flight-dely/flights.", "Did you mean flight-delay/flights?"),
        ("turnaround/flights", "There is no dataset turnaround/flights.", "There are: turnaround/weather."),
        ("x/flights", "There is no dataset x/flights.", "Models with datasets: flight-delay, turnaround."),
        ("turnaroud/flights", "There is no dataset turnaroud/flights.", "Did you mean turnaround?"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(name: str, message: str, hint: str) -> None:
    with pytest.raises(NotFound) as missing:
        find(name, KNOWN)
    assert (missing.value.message, missing.value.hint) == (message, hint)


def test_an_empty_home_says_when_there_will_be_a_dataset() -> None:
    with pytest.raises(NotFound) as missing:
        find("flights", [])
    assert missing.value.hint == "None has been loaded yet: a training run loads the sources of its model."
