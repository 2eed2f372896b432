"""Pure decisions about contracts: what must be in the package, whether it fits, and what differs from what is live."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import msgspec

from relevo.contract.durations import format_duration
from relevo.contract.model import AppliedContract, Change, Condition, Contract, Difference, Gate, Scalar, Source
from relevo.contract.reading import Problems, meant, one_of
from relevo.platform.encoding import parse


@dataclass(frozen=True, slots=True)
class Reference:
    """A ``module:name`` that the contract names in ``field``, and what it must be."""

    field: str
    kind: Literal["loader", "checks", "entry"]
    reference: str


class ViewFeature(msgspec.Struct, frozen=True):
    """A feature as a package's description states it."""

    name: str
    aggregation: str
    column: str | None
    over: timedelta | None
    default: Scalar | None = None


class ViewDerived(msgspec.Struct, frozen=True):
    """A derived column as a package's description states it."""

    name: str
    expression: str
    reads: tuple[str, ...]


class ViewEntity(msgspec.Struct, frozen=True):
    """An entity as a package's description states it."""

    name: str
    key: tuple[str, ...]


class View(msgspec.Struct, frozen=True):
    """A feature view as a package's description states it: as much of its JSON as a contract is checked against."""

    name: str
    entity: ViewEntity
    source: str
    features: tuple[ViewFeature, ...]
    ttl: timedelta | None
    derived: tuple[ViewDerived, ...] = ()
    fresh_within: timedelta | None = None
    required: bool = False


class ViewTransform(msgspec.Struct, frozen=True):
    """A request-time transform as a package's description states it."""

    name: str
    reads: tuple[str, ...]
    text: str


def references(contract: Contract) -> list[Reference]:
    """Everything of the team's package that the contract names, except the module of features."""
    found = []
    for source in contract.sources:
        if source.loader:
            found.append(Reference(f"sources.{source.name}.loader", "loader", source.loader))
        if source.checks:
            found.append(Reference(f"sources.{source.name}.checks", "checks", source.checks))
    return [*found, Reference("training.entry", "entry", contract.training.entry)]


def views_of(description: Mapping[str, object]) -> tuple[View, ...]:
    """The views of a description, typed."""
    return parse(tuple[View, ...], description.get("views", []))


def transforms_of(description: Mapping[str, object]) -> tuple[ViewTransform, ...]:
    """The request-time transforms of a description, each after those that it reads."""
    return parse(tuple[ViewTransform, ...], description.get("transforms", []))


def check_description(contract: Contract, description: Mapping[str, object], problems: Problems) -> None:
    """Record where the package does not fit the contract. ``problems`` gives each field its line."""
    for problem in msgspec.convert(description.get("problems", []), list[dict[str, str]]):
        problems.add(problem["field"], problem["message"])
    columns = msgspec.convert(description.get("columns", {}), dict[str, list[str]])
    taken: dict[str, str] = dict.fromkeys(contract.ask.inputs, "an input")
    taken |= {contract.label.column: "the label"} | ({contract.ask.at: "ask.at"} if contract.ask.at else {})
    for view in views_of(description):
        for message in _view_problems(contract, view, columns):
            problems.add("features", f"view {view.name}: {message}")
        for feature in view.features:
            if feature.name in taken:
                problems.add("features", f"view {view.name}: {feature.name!r} is also {taken[feature.name]}")
            taken[feature.name] = f"a feature of view {view.name}"
    _check_transforms(contract, description, taken, problems)
    _check_sticky(contract, description, problems)


def _check_sticky(contract: Contract, description: Mapping[str, object], problems: Problems) -> None:
    """A split can stick to a column only that requests bring: an input, or a key of an entity."""
    sticky = contract.release.canary.sticky
    sent = dict.fromkeys(contract.ask.inputs)
    sent |= dict.fromkeys(key for view in views_of(description) for key in view.entity.key)
    if sticky is not None and sticky not in sent:
        problems.add("release.canary.sticky", f"a split sticks to what requests bring; {one_of(sticky, tuple(sent))}")


def _check_transforms(
    contract: Contract, description: Mapping[str, object], taken: dict[str, str], problems: Problems
) -> None:
    features = (feature.name for view in views_of(description) for feature in view.features)
    known = dict.fromkeys([*contract.ask.inputs, *features])
    for transform in transforms_of(description):
        for name in transform.reads:
            if name not in known:
                message = f"transform {transform.name}: expected an input, a feature or a transform, got {name!r}"
                problems.add("features", f"{message}{meant(name, known)}")
        if transform.name in taken:
            problems.add("features", f"transform {transform.name}: the name is also {taken[transform.name]}")
        taken[transform.name] = "a transform"
        known[transform.name] = None


def _view_problems(contract: Contract, view: View, columns: Mapping[str, list[str]]) -> Iterator[str]:
    sources = {source.name: source for source in contract.sources}
    if view.source not in sources:
        yield f"source: {one_of(view.source, list(sources))}"
        return
    if sources[view.source].event_time is None:
        yield f"source {view.source} has no event_time, so nothing says what was known when"
    if view.source == contract.label.source:
        yield from _label_readers(contract, view)
    asked = sources.get(contract.ask.source)
    known = [
        *contract.ask.inputs,
        *(asked.key if asked else ()),
        *columns.get(f"sources.{contract.ask.source}.checks", ()),
    ]
    for key in view.entity.key:
        if key not in known:
            where = f"ask.inputs, or in the checks of {contract.ask.source}"
            yield f"entity {view.entity.name}: expected the key among {where}, got {key!r}{meant(key, known)}"


def _label_readers(contract: Contract, view: View) -> Iterator[str]:
    """What of the view reads the outcome that the model predicts, or is made from it."""
    label = contract.label.column
    made_from_it = {label}
    for derived in view.derived:  # each follows those that it reads
        if made_from_it.intersection(derived.reads):
            made_from_it.add(derived.name)
            yield f"derived column {derived.name} reads the label {label} of {view.source}"
    for feature in view.features:
        if feature.column in made_from_it:
            by = "" if feature.column == label else f" by the column {feature.column}"
            yield f"feature {feature.name} reads the label {label} of {view.source}{by}"


def change(
    live: AppliedContract | None,
    new: AppliedContract,
    *,
    live_files: Mapping[str, str],
    new_files: Mapping[str, str],
) -> Change:
    """What ``new`` changes. Files are SHA-256 by path."""
    before = _fields(live) if live else {}
    after = _fields(new)
    names = [*after, *(name for name in before if name not in after)]
    differences = tuple(
        Difference(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    )
    code = tuple(_code_changes(live_files, new_files)) if live is None or live.snapshot != new.snapshot else ()
    is_empty = live is not None and not differences and not code
    live_revision = live.revision if live else None
    return Change(
        model=new.model,
        revision=(live_revision or 0) + (0 if is_empty else 1),
        live_revision=live_revision,
        differences=differences,
        code=code,
        snapshot=new.snapshot,
        git_commit=new.git_commit,
    )


def _code_changes(live: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*live, *new}):
        if live.get(path) != new.get(path):
            yield f"{'+' if path not in live else '-' if path not in new else '~'} {path}"


def _fields(applied: AppliedContract) -> dict[str, str]:
    """Every field of the contract, and the features that the package declares, as dotted name and text."""
    fields = dict(_flattened("", applied.contract))
    for view in views_of(applied.description):
        ttl = "" if view.ttl is None else f", ttl {format_duration(view.ttl)}"
        fresh = "" if view.fresh_within is None else f", fresh within {format_duration(view.fresh_within)}"
        more = f"{ttl}{fresh}{', required' if view.required else ''}"
        fields[f"features.{view.name}"] = f"{view.entity.name} ({', '.join(view.entity.key)}) from {view.source}{more}"
        for derived in view.derived:
            fields[f"features.{view.name}.columns.{derived.name}"] = derived.expression
        for feature in view.features:
            over = "" if feature.over is None else f" over {format_duration(feature.over)}"
            default = "" if feature.default is None else f", default {_words(feature.default)}"
            calculation = f"{feature.aggregation}({feature.column or ''}){over}{default}"
            fields[f"features.{view.name}.{feature.name}"] = calculation
    for transform in transforms_of(applied.description):
        fields[f"features.on_request.{transform.name}"] = transform.text
    return fields


def _flattened(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Gate | Condition) or not (dataclasses.is_dataclass(value) or isinstance(value, dict | tuple)):
        words = _words(value)
        if words is not None:
            yield path.replace("retrain.any_of", "retrain.when.any_of"), words
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            # A source says only what it declares: kinds that it is not, and defaults, would hide the rest.
            is_said = not isinstance(value, Source) or getattr(value, field.name) != field.default
            if is_said and not (isinstance(value, Source) and field.name == "name"):
                yield from _flattened(f"{path}.{field.name}" if path else field.name, getattr(value, field.name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flattened(f"{path}.{key}", item)
    elif isinstance(value, tuple):
        yield from _flattened_list(path, value)


def _flattened_list(path: str, value: tuple[object, ...]) -> Iterator[tuple[str, str]]:
    if path == "retrain.windows":
        yield "retrain.when.windows", f"{value[0]} of {value[1]}"
    elif path == "retrain.guards.at_most":
        yield path, f"{value[0]} per {_words(value[1])}"
    elif value and isinstance(value[0], Source | Gate | Condition):
        for index, item in enumerate(value):
            yield from _flattened(f"{path}.{item.name}" if isinstance(item, Source) else f"{path}[{index}]", item)
    elif value:
        yield path, f"[{', '.join(str(item) for item in value)}]"


def _words(value: object) -> str | None:
    """A plain value as the contract writes it; None for a field that is left out."""
    if isinstance(value, Gate):
        bounds = ((name, getattr(value, name)) for name in ("at_least", "at_most", "better_than_champion_by"))
        return value.rule or " ".join(f"{value.metric} {name} {bound:g}" for name, bound in bounds if bound is not None)
    if isinstance(value, Condition):
        return f"{value.kind} {_words(value.threshold)}"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)
