"""Request-time transforms: declared once, the same for whole columns and for one row."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.errors import Invalid
from relevo.features.column_values import with_transforms
from relevo.features.expressions import Kind, Node, Operation, Transform, kinds_of
from relevo.features.request import (
    OnRequest,
    asked_at,
    cos,
    exp,
    floor,
    log,
    log1p,
    maximum_of,
    minimum_of,
    sin,
    sqrt,
    value,
    where,
)
from relevo.features.row_values import RowTransforms
from relevo.platform.encoding import parse, to_json

KINDS = {"x": Kind.NUMBER, "y": Kind.NUMBER, "n": Kind.NUMBER, "flag": Kind.TRUTH, "word": Kind.TEXT}
SCHEMA = {
    "x": pl.Float64,
    "y": pl.Float64,
    "n": pl.Int64,
    "flag": pl.Boolean,
    "word": pl.String,
    "at": pl.Datetime("us", "UTC"),
}
ROW = {"x": 3.0, "y": -2.0, "n": 4, "flag": True, "word": "p", "at": datetime(2026, 3, 7, 3, 20, tzinfo=UTC)}

special = st.sampled_from([None, 0.0, -0.0, 1.0, -1.0, 0.5, 1e300, -1e300, 1e-300, math.inf, -math.inf, math.nan])
numbers = st.one_of(special, st.floats(-1e6, 1e6), st.integers(-5, 5).map(float))
rows = st.lists(
    st.fixed_dictionaries(
        {
            "x": numbers,
            "y": numbers,
            "n": st.one_of(st.none(), st.integers(-(2**60), 2**60), st.integers(-3, 3)),
            "flag": st.sampled_from([True, False, None]),
            "word": st.sampled_from(["p", "q", "", None]),
            "at": st.integers(0, 16_000_000).map(
                lambda minutes: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
            ),
        }
    ),
    min_size=1,
    max_size=6,
)
zones = st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])


def number_nodes(inner):
    number, truth = inner
    two = st.sampled_from([minimum_of, maximum_of, *_ARITHMETIC])
    one = st.sampled_from([log, log1p, exp, sqrt, floor, sin, cos, abs, lambda a: -a])
    return st.one_of(
        st.builds(lambda f, a, b: f(a, b), two, number, st.one_of(number, st.integers(-3, 3))),
        st.builds(lambda f, a: f(a), one, number),
        st.builds(where, truth, number, st.one_of(number, st.none(), st.just(2))),
        st.builds(lambda a, b: a.fill_null(b), number, st.one_of(number, st.just(0))),
        st.builds(lambda a, b: a + b, truth, number),
    )


def truth_nodes(inner):
    number, truth = inner
    comparisons = st.sampled_from(_COMPARISONS)
    return st.one_of(
        st.builds(lambda f, a, b: f(a, b), comparisons, number, st.one_of(number, st.integers(-3, 3))),
        st.builds(lambda a, b: a & b, truth, truth),
        st.builds(lambda a, b: a | b, truth, truth),
        st.builds(lambda a: ~a, truth),
        st.builds(lambda a: a.is_null(), st.one_of(number, truth)),
        st.builds(lambda a, some: a.is_in(some), number, st.lists(st.integers(-3, 3), min_size=1, max_size=3)),
        st.builds(lambda a, b: a.fill_null(b), truth, st.booleans()),
        st.builds(lambda a, b: a == b, truth, st.one_of(truth, number)),
    )


_ARITHMETIC = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b, lambda a, b: b / a]
_COMPARISONS = [
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
    lambda a, b: a == b,
    lambda a, b: a != b,
]


def expressions(depth: int):
    """Numbers and truth values of at most so many operations on top of each other."""
    number = st.one_of(
        st.sampled_from(["x", "y", "n"]).map(value),
        st.builds(lambda zone, part: getattr(asked_at.in_zone(zone), part), zones, st.sampled_from(_PARTS)),
    )
    truth = st.one_of(
        st.just("flag").map(value),
        st.builds(lambda word: value("word") == word, st.sampled_from(["p", "q", ""])),
        st.just(value("word").is_in(["p", ""])),
        st.just(value("word").fill_null("q") != "q"),
    )
    for _ in range(depth):
        deeper = (number, truth)
        number, truth = st.one_of(number, number_nodes(deeper)), st.one_of(truth, truth_nodes(deeper))
    return st.one_of(number, truth, st.builds(lambda c, a: where(c, "big", a), truth, st.just(value("word"))))


_PARTS = ["minute", "hour", "weekday", "month"]


def by_columns(declared: OnRequest, given: list[dict]) -> list[dict]:
    names = [transform.name for transform in declared.transforms]
    return with_transforms(pl.DataFrame(given, schema=SCHEMA), declared.transforms, "at").select(names).to_dicts()


def by_rows(declared: OnRequest, given: list[dict], sent: frozenset[str] = frozenset()) -> list[dict]:
    names = [*KINDS, *(transform.name for transform in declared.transforms)]
    places = {name: place for place, name in enumerate(names)}
    filled = [[row.get(name) for name in names] for row in given]
    RowTransforms(declared.transforms, places, KINDS).fill(filled, [row["at"] for row in given], sent)
    return [dict(list(zip(names, row, strict=True))[len(KINDS) :]) for row in filled]


def of_one_row(expression, **changes):
    (row,) = by_rows(OnRequest({"t": expression}), [{**ROW, **changes}])
    assert by_columns(OnRequest({"t": expression}), [{**ROW, **changes}]) == [row]
    return row["t"]


@settings(max_examples=400, deadline=None)
@given(expressions(3), expressions(2), rows)
def test_a_row_and_a_column_get_the_same_values(first, second, given_rows):
    declared = OnRequest({"first": first, "second": where(value("first").is_null(), None, second)})
    columns, one_by_one = by_columns(declared, given_rows), by_rows(declared, given_rows)
    assert columns == one_by_one
    for name, kind in kinds_of(declared.transforms, KINDS).items():
        types = {Kind.NUMBER: float, Kind.TEXT: str, Kind.TRUTH: bool}
        assert all(row[name] is None or type(row[name]) is types[kind] for row in one_by_one)


@settings(max_examples=50, deadline=None)
@given(expressions(3))
def test_a_transform_survives_json(expression):
    transform = Transform("t", expression.node)
    assert parse(Transform, json.loads(json.dumps(to_json(transform)))) == transform


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (value("x") / value("y"), -1.5),
        (value("x") / 0, None),
        (0 / value("x"), 0.0),
        (2 - value("x"), -1.0),
        (log(value("y")), None),
        (log1p(maximum_of(value("y"), 0)), 0.0),
        (sqrt(value("n")), 2.0),
        (exp(value("x") * 1000), None),
        (floor(value("y") / 4), -1.0),
        (abs(value("y")), 2.0),
        (minimum_of(value("x"), None), None),
        (value("n") >= 4, True),
        ((value("x") > 1) & (value("y") > 1), False),
        ((value("x") > 1) | value("flag"), True),
        (~value("flag"), False),
        (value("flag") + 1, 2.0),
        (where(value("word") == "p", 1, 0), 1.0),
        (where(value("flag"), "yes", "no"), "yes"),
        (where(value("x") > None, 1, 0), None),
        (value("word").is_in(["q", "r"]), False),
        (value("x").is_in([3, 4]), True),
        (asked_at.hour, 3.0),
        (asked_at.minute, 20.0),
        (asked_at.weekday, 6.0),
        (asked_at.in_zone("America/New_York").hour, 22.0),
        (asked_at.in_zone("America/New_York").weekday, 5.0),
        (asked_at.month, 3.0),
    ],
)
def test_what_an_expression_means(expression, expected):
    assert of_one_row(expression) == expected


def test_nulls():
    assert of_one_row(value("x") + 1, x=None) is None
    assert of_one_row(value("x") + 1, x=math.nan) is None
    assert of_one_row(value("x") == value("y"), x=None, y=None) is None
    assert of_one_row(value("x").is_null(), x=math.inf) is True
    assert of_one_row(value("x").fill_null(7), x=None) == 7.0
    assert of_one_row(value("word").is_in(["p"]), word=None) is None
    assert of_one_row(value("flag") & (value("x") < 0), flag=None) is False
    assert of_one_row(value("flag") | (value("x") > 0), flag=None) is True
    assert of_one_row(value("flag") & (value("x") > 0), flag=None) is None


def test_transforms_read_each_other_and_what_was_sent_wins():
    declared = OnRequest({"double": value("speed") * 2, "speed": value("x") / value("n")})
    assert [transform.name for transform in declared.transforms] == ["speed", "double"]
    assert by_rows(declared, [ROW]) == by_columns(declared, [ROW]) == [{"speed": 0.75, "double": 1.5}]
    assert by_rows(declared, [{**ROW, "speed": 5.0}], frozenset({"speed"})) == [{"speed": 5.0, "double": 10.0}]
    frame = pl.DataFrame([{**ROW, "speed": 5.0}], schema={**SCHEMA, "speed": pl.Float64})
    assert with_transforms(frame, declared.transforms, "at")["double"].to_list() == [10.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnRequest({}), "at least one transform"),
        (lambda: OnRequest({"a b": value("x")}), "letters, digits and underscores"),
        (lambda: OnRequest({"a": lambda row: row["x"]}), "transform a: expected an expression such as"),
        (lambda: OnRequest({"a": pl.col("x")}), "transform a: expected an expression such as"),
        (lambda: OnRequest({"a": value("x") + pl.col("y")}), "expected an expression, a number, text or a truth value"),
        (lambda: OnRequest({"a": value("b"), "b": value("a")}), "transforms read each other in a circle: a -> b -> a"),
        (lambda: OnRequest({"a": value("a") + 1}), "in a circle: a -> a"),
        (lambda: value(""), "expected the name of an input"),
        (lambda: 1 if value("x") > 0 else 0, "has no truth value before there is a request"),
        (lambda: 0 < value("x") < 1, "has no truth value before there is a request"),
        (lambda: math.log(value("x")), "no number before there is a request"),
        (lambda: np.log(value("x")), "cannot have NumPy's log"),
        (lambda: value("x") ** 2, "cannot have a power"),
        (lambda: value("x") % 2, "cannot have a remainder"),
        (lambda: value("x") // 2, "cannot have a whole division"),
        (lambda: value("x") + math.inf, "expected a finite number, got inf"),
        (lambda: value("x").is_in([]), "is_in expects a list"),
        (lambda: value("x").is_in("pq"), "is_in expects a list"),
        (lambda: value("x").is_in([value("y")]), "is_in expects a list"),
        (lambda: asked_at + 1, "unsupported operand"),
        (lambda: value("x") - asked_at, "take a part of it"),
        (lambda: asked_at.in_zone("New York").hour, "no time zone 'New York'"),
        (lambda: OnRequest({"a": value("x") + "1"}), r"transform a: add expects a number, got a text in add\(x, '1'\)"),
        (lambda: OnRequest({"a": ~(value("x") + 1)}), "not expects a truth value, got a number"),
        (
            lambda: OnRequest({"a": where(value("x") > 0, "p", 1)}),
            "where expects values of one kind, got text",
        ),
        (lambda: OnRequest({"a": (value("x") > 0) < "p"}), "less expects a number, got a text"),
    ],
)
def test_what_is_outside_of_the_language_is_refused_where_it_is_declared(make, message):
    with pytest.raises((Invalid, TypeError), match=message):
        make()


def test_an_expression_that_nests_too_deeply_is_refused():
    deep = value("x")
    for _ in range(50):
        deep = deep + 1
    with pytest.raises(Invalid, match="at most 40 nested operations"):
        OnRequest({"a": deep})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (value("distanse") + 1, "transform t: there is no input, feature or transform 'distanse'"),
        (value("word") + 1, "transform t: add expects a number, got a text"),
        (value("x") == "p", "equal expects values of one kind, got text and a number"),
        (value("at").is_null(), "there is no input, feature or transform 'at'"),
        (where(value("flag"), None, None), "transform t is null for every request"),
    ],
)
def test_what_does_not_fit_the_inputs_is_refused_when_a_training_set_is_built(expression, message):
    with pytest.raises(Invalid, match=message):
        with_transforms(pl.DataFrame([ROW], schema=SCHEMA), OnRequest({"t": expression}).transforms, "at")


def test_a_transform_of_the_asked_time_needs_one():
    with pytest.raises(Invalid, match=r"needs the asked time, and the contract has no ask\.at"):
        with_transforms(pl.DataFrame([ROW], schema=SCHEMA), OnRequest({"t": asked_at.hour}).transforms, None)


def test_json_that_is_no_expression_is_refused():
    with pytest.raises(Invalid, match="divide works on 2 values, got 1"):
        parse(Node, {"operation": "divide", "inputs": [{"operation": "literal", "argument": 1}]})
    with pytest.raises(ValueError, match="Invalid enum value 'import'"):
        parse(Node, {"operation": "import", "argument": "os"})
    assert parse(Node, {"operation": "literal", "argument": True}) == Node(Operation.LITERAL, argument=True)


def test_years_of_moments_have_the_same_parts_in_a_zone_with_summer_time():
    start = datetime(2026, 3, 1, tzinfo=UTC)
    given_rows = [{**ROW, "at": start + timedelta(minutes=97 * step)} for step in range(500)]
    there = asked_at.in_zone("America/New_York")
    declared = OnRequest({"hour": there.hour, "weekday": there.weekday, "month": there.month})
    assert by_columns(declared, given_rows) == by_rows(declared, given_rows)


def test_the_gateways_part_imports_no_data_library():
    heavy = ("polars", "pandas", "numpy", "sqlalchemy")
    code = (
        "import sys, relevo.features.request, relevo.features.row_values;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
