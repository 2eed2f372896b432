"""Reads a YAML document block by block and keeps each value's line, so that every problem can name its own.

A reader never stops at the first problem: it records it, gives a placeholder of the right type, and goes on. What it
gave must not be used once ``Problems.listed`` is not empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import yaml

from relevo.contract.durations import parse_duration
from relevo.contract.model import Scalar
from relevo.errors import Invalid, nearest

_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_LONGEST_TEXT = 200_000
_MOST_LISTED = 100
# YAML 1.1 reads 1e-3 as text, because it has no dot; nobody who writes it means text.
_EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")
_KINDS = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "true or false",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "a date",
    "tag:yaml.org,2002:map": "a block",
    "tag:yaml.org,2002:seq": "a list",
}


@dataclass(slots=True)
class Problems:
    """What is wrong with a document, and on which line each field stands (dotted path to line, from 1)."""

    path: str
    lines: dict[str, int] = field(default_factory=dict)
    listed: list[tuple[int, str]] = field(default_factory=list)

    def add(self, field_path: str, message: str, *, line: int | None = None) -> None:
        """Record that ``field_path`` is wrong; its line is the nearest enclosing one that is known."""
        where = self.line_of(field_path) if line is None else line
        self.listed.append((where, f"{field_path}: {message}" if field_path else message))

    def line_of(self, field_path: str) -> int:
        """The line of ``field_path``, or of the block that would hold it."""
        while field_path and field_path not in self.lines:
            field_path = re.sub(r"(?:^|\.)[^.\[]*$|\[\d+\]$", "", field_path)
        return self.lines.get(field_path, 1)

    def raise_any(self) -> None:
        """Raise every recorded problem at once, by line.

        Raises:
            Invalid: One problem a line, each ``path:line: field: message``.
        """
        if self.listed:
            listed = sorted(dict.fromkeys(self.listed), key=lambda problem: problem[0])
            lines = [f"{self.path}:{line}: {message}" for line, message in listed[:_MOST_LISTED]]
            if len(listed) > _MOST_LISTED:
                lines.append(f"{self.path}: and {len(listed) - _MOST_LISTED} more")
            raise Invalid("\n".join(lines))


def meant(name: str, valid: Collection[str]) -> str:
    """``; did you mean 'x'?`` when a valid name is near, else nothing."""
    near = nearest(name, valid)
    return f"; did you mean {near!r}?" if near else ""


def one_of(name: str, valid: Collection[str]) -> str:
    """The message for a name that is not among ``valid``."""
    return f"expected one of {', '.join(valid)}, got {name!r}{meant(name, valid)}"


def read_document(text: str, path: str) -> tuple[Block, Problems]:
    """The root block of a YAML document.

    Raises:
        Invalid: The text is not YAML, or not one block.
    """
    problems = Problems(path)
    if len(text) > _LONGEST_TEXT:
        raise Invalid(f"{path}:1: expected at most {_LONGEST_TEXT} characters, got {len(text)}")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Invalid(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Invalid(f"{path}:1: not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(node, yaml.MappingNode):
        got = "an empty file" if node is None else _kind(node)
        raise Invalid(f"{path}:1: expected a block of keys such as 'model: flight-delay', got {got}")
    problems.lines[""] = 1
    return Block(problems, node, ""), problems


class Block:
    """A mapping of the document. Every key must be asked for; ``close`` reports the others as unknown.

    Without a node it stands in for a block that is missing: what it lacks is not reported again, key by key.
    """

    def __init__(self, problems: Problems, node: yaml.MappingNode | None, path: str) -> None:
        self.problems = problems
        self.path = path
        self.is_missing = node is None
        self._values: dict[str, yaml.Node] = {}
        self._asked: list[str] = []
        for key_node, value in node.value if node is not None else ():
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else _kind(key_node)
            if key in self._values:
                first = problems.lines[self.at(key)]
                problems.add(self.at(key), f"expected once, got again (first on line {first})", line=line)
                continue
            self._values[key] = value
            problems.lines[self.at(key)] = line

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def at(self, key: str) -> str:
        """The dotted path of ``key``."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, message: str) -> None:
        """Record a problem with ``key``."""
        self.problems.add(self.at(key), message)

    def names(self) -> list[str]:
        """The keys, in the order of the document; asking for all of them makes each of them known."""
        self._asked += self._values
        return list(self._values)

    def keys_known(self, *keys: str) -> None:
        """Make keys known that are read by hand."""
        self._asked += keys

    def is_block(self, key: str) -> bool:
        """Whether the value is a block of keys."""
        return isinstance(self._values.get(key), yaml.MappingNode)

    def close(self) -> bool:
        """Report every key that nothing asked for; whether there was one."""
        unknown = [key for key in self._values if key not in self._asked]
        valid = dict.fromkeys(self._asked)
        for key in unknown:
            message = f"unknown key; expected one of {', '.join(valid)}, got {key!r}{meant(key, valid)}"
            self.wrong(key, message)
        return bool(unknown)

    def text(self, key: str, *, what: str = "text") -> str:
        """A required text that is not blank; ``what`` says which in a problem."""
        node = self._required(key, what)
        return "" if node is None else self._text(self.at(key), node, what)

    def optional_text(self, key: str, *, what: str = "text") -> str | None:
        """A text that may be left out."""
        return self.text(key, what=what) if self._has(key) else None

    def choice(self, key: str, valid: Collection[str], default: str | None = None) -> str:
        """One of ``valid``; required when there is no default."""
        if default is not None and not self._has(key):
            return default
        value = self.text(key, what=f"one of {', '.join(valid)}")
        if value and value not in valid:
            self.wrong(key, one_of(value, valid))
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        if not self._has(key):
            return default
        value = self.scalar(key, "true or false")
        if not isinstance(value, bool):
            self._mismatch(key, "true or false")
            return default
        return value

    def number(self, key: str, *, what: str = "a number") -> float:
        """A required finite number."""
        value = self.scalar(key, what)
        if value is None:
            return 0.0
        if isinstance(value, bool | str) or not math.isfinite(value):
            self._mismatch(key, what)
            return 0.0
        return float(value)

    def optional_number(self, key: str, *, what: str = "a number") -> float | None:
        """A finite number that may be left out."""
        return self.number(key, what=what) if self._has(key) else None

    def bounded(self, key: str, default: float, is_valid: Callable[[float], bool], what: str) -> float:
        """A finite number inside bounds that ``what`` puts in words."""
        if not self._has(key):
            return default
        before = len(self.problems.listed)
        value = self.number(key, what=what)
        if len(self.problems.listed) == before and not is_valid(value):
            self._mismatch(key, what)
        return value

    def whole(self, key: str, default: int, *, at_least: int) -> int:
        """A whole number, ``at_least`` or more."""
        what = f"a whole number, {at_least} or more"
        if not self._has(key):
            return default
        value = self.scalar(key, what)
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            self._mismatch(key, what)
            return default
        return value

    def wholes(self, key: str, what: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of whole numbers."""
        if not self._has(key):
            return default
        found = []
        for path, node in self.items(key, what):
            value = _scalar(node)
            if isinstance(value, bool) or not isinstance(value, int):
                self.problems.add(path, f"expected a whole number, got {_shown(node)}", line=_line(node))
            else:
                found.append(value)
        return tuple(found)

    def duration(
        self, key: str, default: timedelta | None = None, *, positive: bool = False, what: str | None = None
    ) -> timedelta:
        """A duration such as ``6h``; required when there is no default."""
        above = " above zero" if positive else ""
        what = what or f"a duration{above} such as 30s, 90m, 6h or 14d"
        if default is not None and not self._has(key):
            return default
        value = self.scalar(key, what)
        parsed = parse_duration(value) if isinstance(value, str) else None
        if parsed is None or (positive and not parsed):
            if value is not None:
                self._mismatch(key, what)
            return timedelta(days=1)
        return parsed

    def scalar(self, key: str, what: str = "a value") -> Scalar | None:
        """A required plain value of any type; None when it is missing, which is recorded."""
        node = self._required(key, what)
        if node is None:
            return None
        value = _scalar(node)
        if value is None:
            self.problems.add(self.at(key), f"expected {what}, got {_shown(node)}", line=_line(node))
        return value

    def texts(self, key: str, example: str, *, required: bool = True) -> tuple[str, ...]:
        """A list of different texts; at least one when it is required."""
        what = f"a list such as {example}"
        if not required and not self._has(key):
            return ()
        items = list(self.items(key, what))
        found: list[str] = []
        for path, node in items:
            value = self._text(path, node, "text")
            if value and value in found:
                self.problems.add(path, f"expected each name once, got {value!r} again", line=_line(node))
            elif value:
                found.append(value)
        if required and not items and key in self._values and isinstance(self._values[key], yaml.SequenceNode):
            self.wrong(key, f"expected {what}, got an empty list")
        return tuple(found)

    def items(self, key: str, what: str = "a list") -> Iterator[tuple[str, yaml.Node]]:
        """The nodes of a required list, each with its path."""
        node = self._required(key, what)
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode):
            self._mismatch(key, what)
            return
        for index, item in enumerate(node.value):
            path = f"{self.at(key)}[{index}]"
            self.problems.lines[path] = _line(item)
            yield path, item

    def block(self, key: str) -> Block:
        """A required block of keys; an empty one stands in when it is missing or something else."""
        node = self._required(key, "a block of keys")
        if node is not None and not isinstance(node, yaml.MappingNode):
            self._mismatch(key, "a block of keys")
            node = None
        return Block(self.problems, node, self.at(key))

    def optional_block(self, key: str) -> Block | None:
        """A block that may be left out."""
        return self.block(key) if self._has(key) else None

    def blocks(self, key: str) -> list[Block]:
        """A list of blocks; nothing when the key is left out."""
        if not self._has(key):
            return []
        found = []
        for path, node in self.items(key, "a list of blocks"):
            if isinstance(node, yaml.MappingNode):
                found.append(Block(self.problems, node, path))
            else:
                self.problems.add(path, f"expected a block of keys, got {_shown(node)}", line=_line(node))
        return found

    def _has(self, key: str) -> bool:
        self._asked.append(key)
        return key in self._values

    def _required(self, key: str, what: str) -> yaml.Node | None:
        if key not in self._asked:
            self._asked.append(key)
        node = self._values.get(key)
        if node is None and not self.is_missing:
            self.problems.add(self.path, f"missing key {key!r}; expected {what}")
        return node

    def _text(self, path: str, node: yaml.Node, what: str) -> str:
        value = _scalar(node)
        if not isinstance(value, str) or not value.strip():
            quote = " (put it in quotes if you mean text)" if isinstance(value, bool | int | float) else ""
            self.problems.add(path, f"expected {what}, got {_shown(node)}{quote}", line=_line(node))
            return ""
        return value.strip()

    def _mismatch(self, key: str, what: str) -> None:
        if key in self._values:
            node = self._values[key]
            self.problems.add(self.at(key), f"expected {what}, got {_shown(node)}", line=_line(node))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1 if node.start_mark else 1


def _kind(node: yaml.Node) -> str:
    return _KINDS.get(node.tag, f"the tag {node.tag}")


def _shown(node: yaml.Node) -> str:
    """A value as a problem quotes it: ``text 'abc'``, ``number 3``, ``a list``."""
    if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":null"):
        return _kind(node)
    text = node.value if len(node.value) <= 80 else node.value[:77] + "..."
    return (
        repr(text) if node.tag.endswith(":str") else f"the {_kind(node).removeprefix('a ').removeprefix('the ')} {text}"
    )


def _scalar(node: yaml.Node) -> Scalar | None:
    """The plain value of a node; None when it is a list, a block, nothing, a date, or cannot be read."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag.endswith(":str"):
        is_number = node.style is None and _EXPONENT.fullmatch(node.value)
        return float(node.value) if is_number else str(node.value)
    constructors: dict[str, Callable[[yaml.ScalarNode], Scalar]] = {
        "tag:yaml.org,2002:int": _CONSTRUCTOR.construct_yaml_int,
        "tag:yaml.org,2002:float": _CONSTRUCTOR.construct_yaml_float,
        "tag:yaml.org,2002:bool": _CONSTRUCTOR.construct_yaml_bool,
    }
    try:
        return constructors[node.tag](node)
    except (KeyError, ValueError):
        return None
