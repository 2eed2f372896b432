"""Rules of the gates, in CEL (the Common Expression Language): checked when applied, judged on evidence.

A rule sees five variables:

- ``metrics``, ``champion``, ``baseline``: maps from the name of a metric to its value on the holdout, of the
  challenger, of the champion and of the simple baseline. ``champion`` is empty while there is no champion, so a rule
  that uses it starts with ``size(champion) == 0 ||``.
- ``slices``: a list with one map a slice: ``name`` (``"origin=JFK"``), ``rows`` and every metric of the challenger on
  that slice. So ``slices.all(s, s.roc_auc > 0.55)`` says that no slice is worse than 0.55.
- ``rows``: the number of rows of the holdout.

Only a rule whose value is ``true`` passes; anything else, an error too, does not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relevo.contract.reading import one_of

VARIABLES = ("metrics", "champion", "baseline", "slices", "rows")
SLICE_FIELDS = ("name", "rows")
_MACROS = ("all", "exists", "exists_one", "map", "filter")
_FUNCTIONS = ("size", "has", "int", "uint", "double", "string", "contains", "startsWith", "endsWith", "matches")
_FAILURES = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
_WORDS = ("true", "false", "null", "in")

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<text>[rRbB]{0,2}(?:"{3}.*?"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      | (?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?[uU]?|\.\d+(?:[eE][-+]?\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rule passed, and its value in words when it did not."""

    passed: bool
    message: str


def rule_variables(
    metrics: Mapping[str, object],
    *,
    champion: Mapping[str, object],
    baseline: Mapping[str, object],
    slices: Mapping[str, Mapping[str, object]],
    rows: int,
) -> dict[str, object]:
    """The evidence as a rule sees it. Slices come keyed by name, and become a list of maps."""
    return {
        "metrics": dict(metrics),
        "champion": dict(champion),
        "baseline": dict(baseline),
        "slices": [{**values, "name": name} for name, values in slices.items()],
        "rows": rows,
    }


def evaluate_rule(rule: str, evidence: Mapping[str, object]) -> bool:
    """Whether the rule holds on what ``rule_variables`` gave. Only ``true`` passes, never an error or a number."""
    return judge_rule(rule, evidence).passed


def judge_rule(rule: str, evidence: Mapping[str, object]) -> Verdict:
    """The rule's verdict, with the reason when it does not pass."""
    import cel  # 0.6 s to import, for its command line

    try:
        value = cel.evaluate(rule, dict(evidence))
    except KeyError as error:
        return Verdict(False, f"rule {rule!r} needs {error}, which the evidence does not hold")
    except _FAILURES as error:
        return Verdict(False, f"rule {rule!r} cannot be judged: {_first_sentence(error)}")
    if value is True:
        return Verdict(True, f"rule {rule!r} holds")
    return Verdict(False, f"rule {rule!r} needs true, got {_shown(value)}")


def rule_problems(rule: str, metrics: Collection[str]) -> list[str]:
    """What is wrong with a rule before there is any evidence: syntax, names, fields, and its type.

    Args:
        rule: The text of the rule.
        metrics: The names of the task's metrics, which are the fields of every map that a rule sees.
    """
    import cel  # 0.6 s to import, for its command line

    try:
        cel.compile(rule)
    except ValueError as error:
        return [f"expected a CEL expression, got {rule!r}: {_syntax(error)}"]
    problems = list(dict.fromkeys(_name_problems(_tokens(rule), metrics)))
    return problems or _trial_problems(rule, metrics)


def _tokens(rule: str) -> list[_Token]:
    matches = (_Token(match.lastgroup or "sign", match.group()) for match in _TOKEN.finditer(rule))
    return [token for token in matches if token.kind != "space"]


def _name_problems(tokens: list[_Token], metrics: Collection[str]) -> Iterator[str]:
    """Unknown variables, functions and fields. The package gives no syntax tree, so this goes by the tokens."""
    end = _Token("sign", "")
    bound: list[tuple[str, int]] = []  # names that macros bind, with the depth of the parenthesis that ends each
    depth = 0
    for index, (kind, text) in enumerate(tokens):
        before = tokens[index - 1].text if index else ""
        after, second, third = ([*tokens[index + 1 : index + 4], end, end, end])[:3]
        depth += (text in "([{") - (text in ")]}") if kind == "sign" else 0
        bound = [(name, opened) for name, opened in bound if opened <= depth]
        if kind == "text" and before == "[" and after.text == "]":
            yield from _field_problem(text.strip("'\""), _owner(tokens, index - 2), metrics)
        if kind != "name" or text in _WORDS:
            continue
        if after.text == "(":
            if before == "." and text in _MACROS and second.kind == "name" and third.text == ",":
                bound.append((second.text, depth + 1))
            elif text not in _FUNCTIONS:
                yield f"unknown function; {one_of(text, (*_FUNCTIONS, *_MACROS))}"
        elif before == ".":
            yield from _field_problem(text, _owner(tokens, index - 2), metrics)
        elif text not in VARIABLES and text not in {name for name, _ in bound}:
            yield f"unknown name; {one_of(text, VARIABLES)}"


def _owner(tokens: list[_Token], index: int) -> str:
    """The name right before a field; empty when the field is of a longer expression."""
    return tokens[index].text if index >= 0 and tokens[index].kind == "name" else ""


def _field_problem(name: str, owner: str, metrics: Collection[str]) -> Iterator[str]:
    if owner in ("slices", "rows"):
        hint = "; slices is a list: use slices.all(s, ...)" if owner == "slices" else ""
        yield f"{owner} has no field {name!r}{hint}"
        return
    valid = tuple(metrics) if owner in VARIABLES else (*metrics, *SLICE_FIELDS)
    if name not in valid:
        kind = "unknown metric" if owner in VARIABLES else "unknown metric or field"
        yield f"{kind}; {one_of(name, valid)}"


def _trial_problems(rule: str, metrics: Collection[str]) -> list[str]:
    """Judge the rule on made-up evidence, which finds wrong types. Not every branch of it runs."""
    import cel  # 0.6 s to import, for its command line

    values = dict.fromkeys(metrics, 0.5)
    evidence = rule_variables(values, champion=values, baseline=values, slices={"a=b": {**values, "rows": 9}}, rows=9)
    try:
        value = cel.evaluate(rule, evidence)
    except _FAILURES as error:
        return [f"expected a rule that can be judged, got {rule!r}: {_first_sentence(error)}"]
    return [] if isinstance(value, bool) else [f"expected a rule that gives true or false, got {_shown(value)}"]


def _syntax(error: ValueError) -> str:
    """The parser's own words, which stand after the place in its first line."""
    first = next((line for line in str(error).splitlines() if "ERROR:" in line), str(error).splitlines()[0])
    return first.rsplit("ERROR: <input>:1:", 1)[-1].split(" expecting ")[0]


def _first_sentence(error: Exception) -> str:
    return str(error).split(". ")[0].splitlines()[0]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value is None else f"the {type(value).__name__} {value!r}"[:80]
