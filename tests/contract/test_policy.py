"""Whether what a package declares fits its contract."""

from __future__ import annotations

import pytest

from relevo.contract.model import AppliedContract, Contract
from relevo.contract.parsing import parse_contract, parse_with_lines
from relevo.contract.policy import change, check_description, references

CONTRACT = """\
model: parcels
owner: logistics
task: classification
package: parcels
sources:
  orders: {loader: "parcels.sources:orders", key: [order_id], event_time: ordered_at, checks: "parcels.checks:Orders"}
  stock: {loader: "parcels.sources:stock", key: [depot], event_time: counted_at}
  towns: {loader: "parcels.sources:towns", key: [town]}
features: "parcels.features"
ask: {source: orders, at: ordered_at, inputs: [depot, weight]}
label: {column: is_late, source: orders}
training: {entry: "parcels.train:train"}
"""


def _view(*, name: str = "shelf", key: str = "depot", source: str = "stock", feature: str = "pieces") -> object:
    calculation = {"name": feature, "aggregation": "mean", "column": "pieces", "over": "PT3600S"}
    entity = {"name": "place", "key": [key]}
    return {"name": name, "entity": entity, "source": source, "features": [calculation], "ttl": None}


def _problems(*views: object) -> list[str]:
    parsed = parse_with_lines(CONTRACT)
    description = {"views": list(views), "columns": {"sources.orders.checks": ["order_id", "courier"]}, "problems": []}
    check_description(parsed.contract, description, parsed.problems)
    assert all(line == 9 for line, _ in parsed.problems.listed)
    return [message for _, message in parsed.problems.listed]


@pytest.mark.parametrize("key", ["depot", "weight", "order_id", "courier"])
def test_an_entity_is_found_by_what_the_caller_knows(key: str) -> None:
    assert _problems(_view(key=key)) == []


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([_view(source="stok")], "source: expected one of orders, stock, towns, got 'stok'; did you mean 'stock'?"),
        ([_view(source="towns")], "source towns has no event_time, so nothing says what was known when"),
        ([_view(key="depto")], "expected the key among ask.inputs, or in the checks of orders, got 'depto'; did you"),
        ([_view(feature="weight")], "view shelf: 'weight' is also an input"),
        ([_view(feature="is_late")], "view shelf: 'is_late' is also the label"),
        ([_view(feature="ordered_at")], "view shelf: 'ordered_at' is also ask.at"),
        ([_view(), _view(name="load")], "view load: 'pieces' is also a feature of view shelf"),
    ],
)
def test_a_view_that_does_not_fit_is_refused(views: list[object], expected: str) -> None:
    problems = _problems(*views)
    assert len(problems) == 1
    assert expected in problems[0]
    assert problems[0].startswith("features: view ")


def _reading(column: str | None, *, aggregation: str = "mean", derived: tuple[object, ...] = ()) -> object:
    calculation = {"name": "lateness", "aggregation": aggregation, "column": column, "over": "PT3600S"}
    view = {"name": "past", "entity": {"name": "place", "key": ["depot"]}, "source": "orders", "ttl": None}
    return {**view, "features": [calculation], "derived": list(derived)}


def test_a_view_that_reads_the_label_is_refused() -> None:
    assert _problems(_reading("is_late")) == ["features: view past: feature lateness reads the label is_late of orders"]
    assert _problems(_reading("weight")) == []
    assert _problems(_reading(None, aggregation="count")) == []


def test_a_view_that_reads_the_label_by_a_derived_column_is_refused() -> None:
    first = {"name": "hint", "expression": "{}", "reads": ["is_late", "weight"]}
    second = {"name": "more", "expression": "{}", "reads": ["hint"]}
    assert _problems(_reading("more", derived=(first, second))) == [
        "features: view past: derived column hint reads the label is_late of orders",
        "features: view past: derived column more reads the label is_late of orders",
        "features: view past: feature lateness reads the label is_late of orders by the column more",
    ]


def test_a_column_of_the_labels_name_in_another_source_is_no_label() -> None:
    assert _problems({**_reading("is_late"), "source": "stock"}) == []


def _towns(declared: str) -> Contract:
    return parse_contract(CONTRACT.replace('loader: "parcels.sources:towns"', declared))


def _applied(contract: Contract) -> AppliedContract:
    return AppliedContract("parcels", 1, contract, "", "s", {}, None, "me")


@pytest.mark.parametrize(
    "declared", ['files: "data/towns.csv"', 'query: "SELECT * FROM towns", connection: house', "table: /lake/towns"]
)
def test_only_loaders_are_looked_for_in_the_package(declared: str) -> None:
    assert [each.field for each in references(_towns(declared))] == [
        "sources.orders.loader",
        "sources.orders.checks",
        "sources.stock.loader",
        "training.entry",
    ]


def test_a_change_of_a_source_shows_what_it_declares() -> None:
    before = _applied(parse_contract(CONTRACT))
    after = _applied(_towns('files: "data/towns.csv", keep: 90d'))
    assert [str(each) for each in change(before, after, live_files={}, new_files={}).differences] == [
        "+ sources.towns.files: data/towns.csv",
        "+ sources.towns.keep: 90d",
        "- sources.towns.loader: parcels.sources:towns",
    ]


def _transformed(*transforms: tuple[str, tuple[str, ...]]) -> list[str]:
    described = [{"name": name, "reads": list(reads), "text": "", "expression": {}} for name, reads in transforms]
    parsed = parse_with_lines(CONTRACT)
    check_description(parsed.contract, {"views": [_view()], "transforms": described}, parsed.problems)
    return [message for _, message in parsed.problems.listed]


def test_a_transform_reads_inputs_features_and_transforms() -> None:
    assert _transformed(("density", ("weight", "pieces")), ("heavy", ("density", "depot"))) == []


@pytest.mark.parametrize(
    ("transforms", "expected"),
    [
        (
            [("a", ("wheight",))],
            "transform a: expected an input, a feature or a transform, got 'wheight'; did you mean",
        ),
        ([("a", ("order_id",))], "transform a: expected an input, a feature or a transform, got 'order_id'"),
        ([("a", ("is_late",))], "transform a: expected an input, a feature or a transform, got 'is_late'"),
        ([("weight", ())], "transform weight: the name is also an input"),
        ([("pieces", ())], "transform pieces: the name is also a feature of view shelf"),
        ([("is_late", ())], "transform is_late: the name is also the label"),
        ([("ordered_at", ())], "transform ordered_at: the name is also ask.at"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused(transforms: list[tuple[str, tuple[str, ...]]], expected: str) -> None:
    problems = _transformed(*transforms)
    assert len(problems) == 1
    assert problems[0].startswith(f"features: {expected}")


@pytest.mark.parametrize("column", ["depot", "weight", "courier"])
def test_a_split_sticks_to_what_requests_bring(column: str) -> None:
    assert _sticky(column) == []


@pytest.mark.parametrize(("column", "near"), [("wieght", "'weight'"), ("pieces", ""), ("ordered_at", "")])
def test_a_sticky_column_that_no_request_brings_is_refused(column: str, near: str) -> None:
    [(line, problem)] = _sticky(column)
    assert line == 13
    assert f"a split sticks to what requests bring; expected one of depot, weight, courier, got {column!r}" in problem
    assert near in problem


def _sticky(column: str) -> list[tuple[int, str]]:
    parsed = parse_with_lines(f"{CONTRACT}release: {{canary: {{sticky: {column}}}}}\n")
    description = {"views": [_view(key="courier")], "columns": {"sources.orders.checks": ["courier"]}, "problems": []}
    check_description(parsed.contract, description, parsed.problems)
    return list(parsed.problems.listed)
