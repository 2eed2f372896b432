"""The reference pages are complete: each is compared with what the code declares."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pages import DOCS, ROOT, all_rows, blocks, rows, tables

from relevo.app.control import build
from relevo.app.pages import include_console
from relevo.app.services import compose
from relevo.contract import model, policy
from relevo.contract.parsing import parse_contract
from relevo.errors import RelevoError
from relevo.identity.api import declared_permissions
from relevo.identity.model import PERMISSIONS, Permission, Role
from relevo.platform.settings import Settings
from relevo.predictions.columns import LABELS, PREDICTIONS
from relevo.serving import gateway, metrics
from relevo.serving.limits import Limits

REFERENCE = DOCS / "reference"
SHORTEST = """
model: m
owner: o
task: regression
package: p
sources: {s: {loader: "p.a:b", key: [k], event_time: t}}
ask: {source: s, at: t, inputs: [i]}
label: {column: l, source: s}
training: {entry: "p.a:c"}
retrain: {when: {any_of: [{age: 1d}]}}
"""
#: Fields whose keys are written otherwise than their dataclasses are nested.
SPELT = {
    "sources": "sources.NAME",
    "gates": "gates[]",
    "training.window": "training.window",
    "retrain.any_of": "retrain.when.any_of",
    "retrain.windows": "retrain.when.windows",
}


def test_every_key_of_the_contract_is_described() -> None:
    described = [row[0] for row in all_rows((REFERENCE / "contract.md").read_text(), "key")]
    assert sorted(described) == sorted({*described}), "a key is described twice"
    conditions = {"performance_drop", "age", "drift"}
    expected = {
        *_keys(model.Contract, ""),
        *(f"retrain.when.any_of[].{kind}" for kind in conditions),
        "training.window.sliding",
    }
    assert set(described) == expected


def test_defaults_of_the_contract_are_those_of_the_parser() -> None:
    described = {row[0]: row[2] for row in all_rows((REFERENCE / "contract.md").read_text(), "key")}
    given = set(re.findall(r"(\w+):", SHORTEST))
    found = dict(policy._flattened("", parse_contract(SHORTEST)))
    for key, value in found.items():
        if key.split(".")[-1] not in given and key in described:
            assert described[key] == value, key
    for key in ("training.window.sliding", "features", "sources.NAME.checks", "retrain.guards.at_most"):
        assert described[key] == "none"
    assert described["training.window"] == "expanding"


def test_the_contract_with_every_key_holds_every_key_and_is_right() -> None:
    text = (REFERENCE / "contract.md").read_text()
    [example] = [block for block in blocks(text, "yaml") if "freeze_without_labels" in block]
    parse_contract(example)
    for key in (row[0] for row in all_rows(text, "key")):
        assert re.search(rf"\b{key.split('.')[-1].removesuffix('[]')}\b", example) or key == "sources.NAME", key


def test_contracts_in_other_pages_are_right() -> None:
    whole = [block for block in blocks((ROOT / "README.md").read_text(), "yaml") if block.startswith("model:")]
    assert len(whole) == 1
    parse_contract(whole[0])


def test_every_setting_is_described() -> None:
    found = rows((REFERENCE / "settings.md").read_text(), "variable")
    expected = [
        [f"RELEVO_{name.upper()}", "none" if field.default is None else str(field.default), field.description]
        for name, field in Settings.model_fields.items()
    ]
    assert found == expected


def test_every_variable_of_the_commands_is_described() -> None:
    used = set(re.findall(r"RELEVO_\w+", (ROOT / "src/relevo/cli/client.py").read_text()))
    _, second = tables((REFERENCE / "settings.md").read_text(), "variable")
    assert {row[0] for row in second} == used - {f"RELEVO_{name.upper()}" for name in Settings.model_fields}


def test_every_error_is_described() -> None:
    described = {row[0]: (int(row[1]), int(row[2])) for row in rows((REFERENCE / "errors.md").read_text(), "code")}
    assert described == {kind.code: (kind.http_status, kind.exit_status) for kind in _errors()}


def test_every_route_of_the_control_plane_is_described_with_its_permission(app: FastAPI) -> None:
    described = {row[0]: row[1] for row in all_rows((REFERENCE / "http.md").read_text(), "route")}
    expected = {
        route: "open" if permission is None else permission.value
        for route, permission in declared_permissions(app).items()
        if not route.startswith("MOUNT")
    }
    missing = [f"| `{route}` | {expected[route]} | |" for route in expected if described.get(route) != expected[route]]
    assert not missing, "docs/reference/http.md lacks:\n" + "\n".join(missing)
    assert set(described) == set(expected)


def test_every_route_of_the_gateway_is_described() -> None:
    described = {row[0] for row in rows((REFERENCE / "gateway.md").read_text(), "route")}
    there = {route if " " in route else f"GET {route}" for route in gateway._ROUTES.split(", ")}
    assert described == there


def test_limits_of_the_gateway_are_described() -> None:
    text = (REFERENCE / "gateway.md").read_text()
    limits = Limits()
    for value in (
        f"{limits.body_bytes:,} bytes",
        f"{limits.rows:,}",
        f"{limits.concurrency:,}",
        f"{limits.body_seconds:g} s",
    ):
        assert f"| {value} |" in text


def test_every_metric_is_described() -> None:
    described = {row[0] for row in rows((REFERENCE / "gateway.md").read_text(), "metric")}
    there = re.findall(r"^# TYPE (\S+)", metrics.exposition([], []).decode(), re.MULTILINE)
    assert described == set(there)


def test_every_column_of_the_log_is_described() -> None:
    predictions, labels = tables((REFERENCE / "prediction-log.md").read_text(), "column")
    assert [row[0] for row in predictions] == list(PREDICTIONS)
    assert [row[0] for row in labels] == list(LABELS)


def test_permissions_of_roles_are_described() -> None:
    text = (DOCS / "how-to/tokens-and-roles.md").read_text()
    header = next(line for line in text.splitlines() if line.startswith("| permission"))
    roles = [Role(cell.strip()) for cell in header.strip("|").split("|")[2:]]
    described = {row[0]: [cell == "yes" for cell in row[2:]] for row in rows(text, "permission")}
    assert described == {
        permission.value: [permission in PERMISSIONS[role] for role in roles] for permission in Permission
    }
    assert {*roles, Role.RUN, Role.LOAD_TEST, Role.SYSTEM} == set(Role)


def test_every_figure_of_the_demo_is_explained() -> None:
    from relevo.cli.demo.report import Figures, Month

    text = (DOCS / "benchmarks/demo.md").read_text()
    columns = {row[1] for row in rows(text, "column")}
    assert columns == {field.name for field in dataclasses.fields(Month)}
    for field in dataclasses.fields(Figures):
        assert f"`{field.name}`" in text or field.name == "months"


def test_terms_of_the_glossary_stand_in_order() -> None:
    terms = [row[0] for row in rows((DOCS / "glossary.md").read_text(), "term")]
    plain = [re.sub(r"[^a-z0-9 ]", "", term.lower().replace("-", " ").replace("_", " ")) for term in terms]
    assert plain == sorted(plain)
    assert len(set(terms)) == len(terms)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    """The application of the control plane with the console's pages, not started."""
    services = compose(Settings(home=tmp_path))
    application = build(services)
    if "GET /" not in declared_permissions(application):
        include_console(application)
    yield application
    services.close()


def _keys(kind: Any, path: str) -> Iterator[str]:
    """The dotted keys of a dataclass of the contract; blocks themselves are no keys."""
    for field in dataclasses.fields(kind):
        inner = _block_of(field.type)
        key = f"{path}.{field.name}" if path else field.name
        if (kind, field.name) in {(model.Source, "name"), (model.Contract, "imported")}:  # no key of a file
            continue
        if inner is None or inner is model.Condition:
            yield SPELT.get(key, key)
        else:
            if inner is model.Source:
                yield "sources"
            yield from _keys(inner, SPELT.get(key, key))


def _block_of(annotation: Any) -> Any:
    """The dataclass that a field holds, alone or in a tuple."""
    names = [
        name for name in re.findall(r"\w+", str(annotation)) if dataclasses.is_dataclass(getattr(model, name, None))
    ]
    return getattr(model, names[0]) if names else None


def _errors() -> set[type[RelevoError]]:
    """Every error class with a code, found in the source, so that none is missed that nothing here imports."""
    found = {RelevoError}
    for path in (ROOT / "src/relevo").rglob("*.py"):
        if "http_status" not in (text := path.read_text()) and " code = " not in text:
            continue
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and any(_sets_code(statement) for statement in node.body):
                kind = getattr(importlib.import_module(module), node.name)
                if isinstance(kind, type) and issubclass(kind, RelevoError):
                    found.add(kind)
    return found


def _sets_code(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "code" for target in statement.targets
    )
