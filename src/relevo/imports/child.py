"""The child process of an import, in the model's own environment: ``python -m relevo.imports.child``.

The only place of an import that unpickles.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import msgspec

from relevo.errors import Invalid
from relevo.imports.examining import examine
from relevo.imports.folder import FILES, MODEL, files_of
from relevo.imports.model import Asked, Packed
from relevo.imports.rows import example_rows, generated_rows, known_texts
from relevo.imports.schema import describe
from relevo.platform.child import progress, serve
from relevo.platform.encoding import parse, to_json
from relevo.registry.load_rows import LOAD_ROWS_FILE, MOST_LOAD_ROWS, LoadRows
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.frames import as_frame
from relevo.runtimes.model import ColumnType, Signature
from relevo.runtimes.model_folder import FOLDER, load_model

_LIBRARIES = ("scikit-learn", "lightgbm", "xgboost", "catboost", "statsmodels", "mlflow", "numpy", "pandas")


def pack(folder: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Load the model, compile it where that agrees, and leave the files of its bundle: a ``Packed``.

    Raises:
        Invalid: The model cannot be loaded, cannot answer its own signature, or its task is not known.
    """
    place, request = Path(folder), parse(Asked, asked)
    source = place / MODEL
    described = describe(source)
    progress(f"loading the model ({described.flavor})")
    model = _load(source)
    task, classes = examine(model, request.task, request.classes)
    signature = Signature(task, described.columns, classes=classes)
    examples = [] if described.example is None else example_rows(source / described.example, signature)
    rows = [*examples, *generated_rows(signature, examples, known_texts(model))]
    progress(f"comparing runtimes on {len(rows)} rows")
    files = files_of(source, f"{FOLDER}/")
    try:
        compiled = compile_model(
            model, signature, as_frame(rows, signature, {}), kind="generated", original_files=files
        )
    except Invalid:
        raise
    except Exception as error:
        raise Invalid(
            f"The model does not answer rows of its own signature: {type(error).__name__}: {error}"[:2000],
            field="signature",
            hint=_how_to_answer(signature),
        ) from error
    load_rows = LoadRows(tuple(column.name for column in signature.inputs), rows[:MOST_LOAD_ROWS])
    made_here = {path: content for path, content in compiled.files.items() if path not in files}
    _write(place / FILES, {**made_here, LOAD_ROWS_FILE: msgspec.json.encode(load_rows)})
    made = len(rows) - len(examples)
    told = (
        f"{len(examples)} rows of the input example and {made} generated rows" if examples else f"{made} generated rows"
    )
    packed = Packed(compiled.runtime, signature, compiled.agreement, f"{told}; there was no holdout", _libraries())
    answer: dict[str, Any] = to_json(packed)
    return answer


def _how_to_answer(signature: Signature) -> str:
    hint = "Log it with the signature of the frame that it predicts from."
    texts = [column.name for column in signature.inputs if column.type is ColumnType.TEXT]
    if not texts:
        return hint
    plain = f"Text reaches it as plain strings ({', '.join(texts)}): encode it in a step of its pipeline"
    return f"{hint} {plain}, and log an input_example, so that words which it knows are tried."


def _load(source: Path) -> Any:
    try:
        return load_model(source)
    except Exception as error:
        raise Invalid(
            f"The model cannot be loaded: {type(error).__name__}: {error}"[:2000],
            hint="Its requirements.txt must name everything that it needs: log it with pip_requirements=[...].",
        ) from error


def _write(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _libraries() -> str:
    installed = []
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(installed)


if __name__ == "__main__":
    serve({"pack": pack})
