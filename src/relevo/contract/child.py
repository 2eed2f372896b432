"""Runs in a child process: imports the team's package and says what it declares, or what is missing.

Nothing here raises for a mistake in the package; each becomes a problem of the field of the contract that named it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from relevo.errors import nearest
from relevo.platform.encoding import to_json
from relevo.platform.jobs import serve

Json = dict[str, Any]


class _Missing(Exception):
    """Something that the contract names is not in the package, or is not what it should be."""


def describe(package: str, references: list[Json], features: str | None) -> Json:
    """What the package declares.

    Args:
        package: Name of the team's package.
        references: ``{"field", "kind": "loader" | "checks" | "entry", "reference": "module:name"}`` each.
        features: Module that declares the feature views, or None.

    Returns:
        ``{"views": [view], "transforms": [transform], "columns": {field of checks: [column]},
        "problems": [{"field", "message"}]}``, the views sorted by name, each transform after those that it reads, with
        ``reads`` and a ``text`` for people. Views and transforms are those that stand in the module under a name of
        their own.
    """
    problems: list[Json] = []
    columns: dict[str, list[str]] = {}
    views: list[Json] = []
    transforms: list[Json] = []
    for each in references:
        try:
            found = _named(package, each["reference"], each["kind"])
            if hasattr(found, "column_names"):
                columns[each["field"]] = list(found.column_names())
            elif each["kind"] != "checks":
                _check_parameters(found, each["kind"])
        except _Missing as missing:
            problems.append({"field": each["field"], "message": str(missing)})
    if features is not None:
        try:
            module = _module(package, features)
            transforms = _transforms(module)
            views = _views(module, may_be_none=bool(transforms))
        except _Missing as missing:
            problems.append({"field": "features", "message": str(missing)})
    return {"views": views, "transforms": transforms, "columns": columns, "problems": problems}


def _named(package: str, reference: str, kind: str) -> Any:
    module_name, _, name = reference.partition(":")
    module = _module(package, module_name)
    fits: dict[str, Callable[[object], bool]] = {
        "loader": inspect.isroutine,
        "entry": inspect.isroutine,
        "checks": lambda value: inspect.isroutine(value) or hasattr(value, "column_names"),
    }
    what = {"loader": "a function", "entry": "a function", "checks": "a dataframely schema or a function"}[kind]
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if fits[kind](value) and _is_own(value, module)]
        raise _Missing(f"expected {what} of {module_name}, got {name!r}, which is not there{_meant(name, own)}")
    value = getattr(module, name)
    if not (fits[kind](value) or (callable(value) and not inspect.isclass(value))):
        raise _Missing(f"expected {what}, got {name!r}, which is {_kind(value)}")
    return value


def _is_own(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _module(package: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            modules = _modules(package)
            raise _Missing(f"expected a module of {package}, got {name!r}{_meant(name, modules)}") from error
        raise _Missing(_import_failure(package, name, error)) from error
    except (Exception, SystemExit) as error:
        raise _Missing(_import_failure(package, name, error)) from error


def _modules(package: str) -> list[str]:
    try:
        root = importlib.import_module(package)
    except (Exception, SystemExit):  # its own import is reported where a module of it is named
        return []
    return [package, *(f"{package}.{module.name}" for module in pkgutil.iter_modules(root.__path__))]


def _import_failure(package: str, name: str, error: BaseException) -> str:
    """``importing flight_delay.sources raised NameError: name 'x' is not defined (sources.py, line 12)``."""
    place = ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename.rsplit('/', 1)[-1]}, line {error.lineno})"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"/{package}/" in frame.filename]
        if frames:
            place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}, line {frames[-1].lineno})"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"importing {name} raised {type(error).__name__}: {message}{place}"


def _check_parameters(function: Callable[..., object], kind: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins tell none
        return
    if kind == "entry":
        try:
            signature.bind(None, {})
        except TypeError:
            raise _Missing(f"expected a function of (training, params), got one of {signature}") from None
        return
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        is_known = parameter.name in ("since", "until") and parameter.kind is not parameter.POSITIONAL_ONLY
        if not is_known and parameter.default is parameter.empty:
            raise _Missing(f"expected a function of nothing, or of since and until, got one of {signature}")


def _transforms(module: ModuleType) -> list[Json]:
    found = {id(value): value for value in vars(module).values() if type(value).__name__ == "OnRequest"}
    if len(found) > 1:
        raise _Missing(f"expected one OnRequest with every transform in {module.__name__}, got {len(found)}")
    return [
        {**to_json(transform), "reads": list(transform.reads), "text": str(transform.expression)}
        for declared in found.values()
        for transform in declared.transforms
    ]


def _views(module: ModuleType, *, may_be_none: bool) -> list[Json]:
    found = {id(value): value for value in vars(module).values() if type(value).__name__ == "FeatureView"}
    views = sorted((to_json(view) for view in found.values()), key=lambda view: str(view["name"]))
    if not views and not may_be_none:
        raise _Missing(f"expected at least one FeatureView in {module.__name__}, got none")
    names = [view["name"] for view in views]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _Missing(f"expected each feature view once, got {twice!r} twice in {module.__name__}")
    return views


def _kind(value: object) -> str:
    return "a module" if inspect.ismodule(value) else f"a value of type {type(value).__name__}"


def _meant(name: str, valid: list[str]) -> str:
    near = nearest(name, valid)
    if near:
        return f"; did you mean {near!r}?"
    return f"; there is {', '.join(valid[:8])}" if valid else ""


if __name__ == "__main__":
    serve({"describe": describe})
