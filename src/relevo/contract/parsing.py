"""``relevo.yaml`` to a Contract: every problem at once, each with its line and the nearest valid name."""

from __future__ import annotations

import keyword
import math
import re
import sys
from dataclasses import dataclass
from datetime import timedelta

from relevo.contract.delivery import read_gate, read_monitor, read_release, read_retrain
from relevo.contract.durations import parse_duration
from relevo.contract.endpoint import read_log, read_serving
from relevo.contract.model import Ask, Contract, Label, Scalar, Source, Task, Training
from relevo.contract.reading import Block, Problems, meant, read_document
from relevo.contract.references import IDENTIFIER, read_module, read_reference
from relevo.contract.sources import read_sources

FILE_NAME = "relevo.yaml"
MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A contract, and where each field of it stands, so that later checks can name lines too."""

    contract: Contract
    problems: Problems


def parse_contract(text: str, path: str = FILE_NAME) -> Contract:
    """The contract that ``text`` declares; ``path`` is what problems call the file.

    Raises:
        Invalid: Every problem, one a line: ``relevo.yaml:12: gates[0].metric: expected ..., got ...``.
    """
    return parse_with_lines(text, path).contract


def parse_with_lines(text: str, path: str = FILE_NAME) -> Parsed:
    """Like ``parse_contract``, and keeps the line of each field.

    Raises:
        Invalid: Every problem, one a line.
    """
    root, problems = read_document(text, path)
    model = root.text("model", what="a name such as flight-delay")
    if model and not MODEL_NAME.fullmatch(model):
        root.wrong("model", f"expected small letters, digits and '-', a letter first, at most 63, got {model!r}")
    owner = root.text("owner")
    task = (
        Task.REGRESSION if root.choice("task", [task.value for task in Task]) == "regression" else Task.CLASSIFICATION
    )
    package = _package(root)
    sources = read_sources(root, package)
    features = read_module(root, "features", package) if "features" in root else None
    ask = _ask(root, sources)
    # A contract that only forgot ask.at gets that one problem, not those of a contract without times.
    is_timed = ask.at is not None or any(source.name == ask.source and source.event_time for source in sources.values())
    label = _label(root, sources, ask, is_timed=is_timed)
    contract = Contract(
        model=model,
        owner=owner,
        task=task,
        package=package,
        sources=tuple(sources.values()),
        features=features,
        ask=ask,
        label=label,
        training=_training(root, package, is_timed=is_timed),
        gates=tuple(read_gate(block, task) for block in root.blocks("gates")),
        release=read_release(root, task),
        log=read_log(root),
        serving=read_serving(root),
        monitor=read_monitor(root, ask),
        retrain=read_retrain(root),
    )
    if features is not None and not is_timed and not problems.listed:
        root.wrong("features", "features are looked up as known at ask.at, and this contract names no ask.at")
    root.keys_known("features")
    root.close()
    problems.raise_any()
    return Parsed(contract, problems)


def _package(root: Block) -> str:
    package = root.text("package", what="the name of the Python package beside this file")
    if package and not IDENTIFIER.fullmatch(package):
        root.wrong("package", f"expected a Python identifier such as flight_delay, got {package!r}")
        return ""
    if keyword.iskeyword(package) or package == "relevo" or package in sys.stdlib_module_names:
        root.wrong("package", f"expected a name of your own, got {package!r}, which Python or Relevo uses itself")
        return ""
    return package


def _ask(root: Block, sources: dict[str, Source]) -> Ask:
    block = root.block("ask")
    source = block.choice("source", list(sources)) if sources else block.text("source")
    ask = Ask(
        source=source,
        at=block.optional_text("at", what="the name of a column"),
        inputs=block.texts("inputs", "[carrier, origin]"),
    )
    block.close()
    declared = sources.get(source)
    if declared is None:
        return ask
    if declared.event_time and not ask.at:
        block.problems.add(block.path, f"missing key 'at'; sources.{source} has an event_time, so say when it is asked")
    if ask.at and not declared.event_time:
        block.wrong("at", f"sources.{source} has no event_time, so nothing can be asked at a time")
    if declared.known_time and declared.known_time in ask.inputs and declared.known_time != ask.at:
        block.wrong(
            f"inputs[{ask.inputs.index(declared.known_time)}]",
            f"{declared.known_time!r} is the known_time of the row: nobody knows it when they ask",
        )
    return ask


def _label(root: Block, sources: dict[str, Source], ask: Ask, *, is_timed: bool) -> Label:
    block = root.block("label")
    source = block.choice("source", list(sources)) if sources else block.text("source")
    label = Label(
        column=block.text("column", what="the name of a column"),
        source=source,
        available_after=block.duration("available_after", timedelta(0)),
        allowance=block.duration("allowance", timedelta(0)),
    )
    block.close()
    if label.column and label.column in ask.inputs:
        where = root.problems.line_of(f"ask.inputs[{ask.inputs.index(label.column)}]")
        block.wrong("column", f"{label.column!r} is also an input (line {where}): the model would be told the answer")
    if label.column and label.column == ask.at:
        block.wrong("column", f"{label.column!r} is also ask.at")
    if label.source in sources and ask.source in sources:
        asked, labelled = sources[ask.source], sources[label.source]
        if asked.key != labelled.key:
            expected = f"a source with the key of {asked.name} ({', '.join(asked.key)})"
            block.wrong("source", f"expected {expected}, got {labelled.name!r} with {', '.join(labelled.key)}")
    for key in ("available_after", "allowance"):
        if key in block and not is_timed:
            block.wrong(key, "a wait for labels counts from ask.at, and this contract names none")
    return label


def _training(root: Block, package: str, *, is_timed: bool) -> Training:
    block = root.block("training")
    training = Training(
        entry=read_reference(block, "entry", package),
        window=_window(block, is_timed=is_timed),
        holdout=_holdout(block, is_timed=is_timed),
        params=_params(block),
    )
    block.close()
    return training


def _window(block: Block, *, is_timed: bool) -> timedelta | None:
    what = "expanding, or {sliding: 90d}"
    if "window" not in block:
        block.keys_known("window")
        return None
    if block.is_block("window"):
        sliding = block.block("window")
        window = sliding.duration("sliding", positive=True)
        sliding.close()
        if not is_timed:
            block.wrong("window", "a sliding window needs ask.at: without event time no row is older than another")
        return window
    value = block.text("window", what=what)
    if value and value != "expanding":
        block.wrong("window", f"expected {what}, got {value!r}{meant(value, ['expanding', 'sliding'])}")
    return None


def _holdout(block: Block, *, is_timed: bool) -> timedelta | float:
    what = "a duration such as 14d or a share such as 20%" if is_timed else "a share such as 20%"
    if "holdout" not in block:
        block.keys_known("holdout")
        return 0.2
    value = block.scalar("holdout", what)
    if value is None:
        return 0.2
    if isinstance(value, str) and not (percent := _PERCENT.fullmatch(value)):
        if not is_timed and parse_duration(value) is not None:
            reason = "without ask.at there is no most recent part of that length"
            block.wrong("holdout", f"expected {what}, got {value!r}: {reason}")
            return 0.2
        return block.duration("holdout", positive=True, what=what)
    share = float(percent[1]) / 100 if isinstance(value, str) and percent else value
    if isinstance(share, str | bool) or not 0 < share <= 0.9:
        block.wrong("holdout", f"expected {what}, above zero and at most 90%, got {value!r}")
        return 0.2
    return float(share)


def _params(block: Block) -> dict[str, Scalar]:
    params: dict[str, Scalar] = {}
    declared = block.optional_block("params")
    for name in declared.names() if declared else ():
        value = declared.scalar(name, "text, a number, true or false") if declared else None
        if declared and isinstance(value, float) and not math.isfinite(value):
            declared.wrong(name, f"expected a finite number, got {value}")
        elif value is not None:
            params[name] = value
    return params
