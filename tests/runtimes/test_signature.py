"""The signature follows from contract, views and training frame."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from relevo.contract.model import Ask, Contract, Label, Source, Task, Training
from relevo.errors import Invalid
from relevo.features.model import Aggregation, Entity, Feature, FeatureView
from relevo.features.request import OnRequest, value
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.signature import derive_signature


def contract(inputs: tuple[str, ...] = ("carrier", "distance"), task: Task = Task.CLASSIFICATION) -> Contract:
    return Contract(
        model="flight-delay",
        owner="ops",
        task=task,
        package="flight_delay",
        sources=(Source("flights", "flight_delay.sources:flights", ("id",)),),
        ask=Ask("flights", inputs, "scheduled_at"),
        label=Label("is_late", "flights"),
        training=Training("flight_delay.train:train"),
    )


def view(name: str, key: tuple[str, ...], *features: str) -> FeatureView:
    made = tuple(Feature(feature, Aggregation.LATEST, feature, None) for feature in features)
    return FeatureView(name, entity=Entity(name, key), source="weather", features=made)


FRAME = pl.DataFrame(
    schema={
        "carrier": pl.Categorical,
        "distance": pl.Int64,
        "origin": pl.String,
        "wind": pl.Float32,
        "is_gusty": pl.Boolean,
        "seen_at": pl.Datetime("us", "UTC"),
        "naive_at": pl.Datetime("us"),
        "tags": pl.List(pl.String),
        "kind": pl.Enum(["a"]),
        "price": pl.Decimal(10, 2),
        "nothing": pl.Null,
        "small": pl.UInt8,
    }
)
DTYPES = {name: str(dtype) for name, dtype in FRAME.schema.items()}


def test_inputs_then_features_then_keys_that_are_no_inputs() -> None:
    views = (view("weather", ("origin",), "wind", "is_gusty"), view("plane", ("carrier",), "seen_at"))
    assert derive_signature(contract(), views, DTYPES, ("0", "1")) == Signature(
        Task.CLASSIFICATION,
        inputs=(
            Column("carrier", ColumnType.TEXT),
            Column("distance", ColumnType.INTEGER),
            Column("wind", ColumnType.FLOAT, view="weather"),
            Column("is_gusty", ColumnType.BOOLEAN, view="weather"),
            Column("seen_at", ColumnType.TIME, view="plane"),
        ),
        keys=(Column("origin", ColumnType.TEXT),),
        at="scheduled_at",
        classes=("0", "1"),
    )


def test_transforms_stand_last_and_nobody_has_to_send_them() -> None:
    transforms = OnRequest({"is_far": value("distance") > 1000}).transforms
    made = derive_signature(contract(), (), {**DTYPES, "is_far": "Boolean"}, ("0", "1"), transforms)
    assert made.inputs[-1] == Column("is_far", ColumnType.BOOLEAN, is_computed=True)
    assert [column.name for column in made.inputs if column.is_asked] == ["carrier", "distance"]
    twice = OnRequest({"distance": value("carrier") == "AA"}).transforms
    with pytest.raises(Invalid, match="'distance' is named twice"):
        derive_signature(contract(), (), DTYPES, ("0", "1"), twice)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("kind", ColumnType.TEXT), ("origin", ColumnType.TEXT), ("price", ColumnType.FLOAT)),
        *(("nothing", ColumnType.FLOAT), ("small", ColumnType.INTEGER)),
    ],
)
def test_types_of_the_training_frame_are_known(name: str, kind: ColumnType) -> None:
    made = derive_signature(contract((name,), Task.REGRESSION), (), DTYPES, ("left out",))
    assert [column.type for column in made.inputs] == [kind]
    assert made.classes == ()


REFUSED: dict[str, tuple[Any, str]] = {
    "not in the frame": ((contract(("gone",)), (), ("0", "1")), "'gone' is not in the training frame"),
    "no zone": ((contract(("naive_at",)), (), ("0", "1")), "has type Datetime"),
    "a list": ((contract(("tags",)), (), ("0", "1")), "expected numbers, text, booleans, or times with a zone"),
    "twice": ((contract(), (view("v", ("origin",), "distance"),), ("0", "1")), "'distance' is named twice"),
    "one class": ((contract(), (), ("0",)), "at least two classes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_request_can_carry_is_refused(case: str) -> None:
    (declared, views, classes), words = REFUSED[case]
    with pytest.raises(Invalid, match=words):
        derive_signature(declared, views, DTYPES, classes)
