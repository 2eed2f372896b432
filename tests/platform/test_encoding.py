"""JSON to dataclasses, from many threads at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from relevo.platform import encoding

#: Each class is read for the first time by eight threads at once, in a process that may die of it.
PROGRAM = Path(__file__).parent / "reading_threads.py"


def test_threads_that_read_a_class_for_the_first_time_at_once_all_read_it() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "200 classes were read by 8 threads each\n"), done.stderr[-2_000:]


def classes_read(call: ast.Call) -> list[str]:
    """The classes that a call of ``msgspec.convert(value, KIND)`` or ``decode(text, type=KIND)`` reads."""
    called = ast.unparse(call.func)
    kinds = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
    if called == "msgspec.convert":
        kinds += call.args[1:]
    elif called != "msgspec.json.decode":
        return []
    names = [node.id for kind in kinds for node in ast.walk(kind) if isinstance(node, ast.Name)]
    return [name for name in names if name[0].isupper() and name != "Any"]


def test_no_module_reads_a_class_without_the_lock() -> None:
    sources = Path(encoding.__file__).parents[1]
    found = [
        f"{path.relative_to(sources)}:{node.lineno} reads {', '.join(classes_read(node))}"
        for path in sorted(sources.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and classes_read(node)
    ]
    assert found == []
