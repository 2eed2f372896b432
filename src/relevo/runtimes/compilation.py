"""Which runtime a version gets: the first that can be made and agrees with the original. Runs in the training child."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from relevo.errors import Invalid, RelevoError
from relevo.platform.encoding import to_json
from relevo.runtimes import agreement, original
from relevo.runtimes.compilers import COMPILERS
from relevo.runtimes.explanation import BACKGROUND_FILE, BACKGROUND_ROWS
from relevo.runtimes.frames import as_frame, rows_of_frame
from relevo.runtimes.isolated import IsolatedRuntime
from relevo.runtimes.loading import ISOLATED, PROBE_FILE, Probe, Runtime, open_runtime
from relevo.runtimes.model import CATEGORIES_FILE, Signature
from relevo.runtimes.model_folder import model_files

if TYPE_CHECKING:
    import pandas as pd

#: Rows of the probe that a loaded version answers before it takes traffic.
PROBE_ROWS = 20
#: Rows on which the isolated original is compared with itself: each is a call to another process.
ISOLATED_ROWS = 60


@dataclass(frozen=True, slots=True)
class Compiled:
    """The chosen runtime, its files by their path in the bundle, and the evidence for the choice as plain JSON."""

    runtime: str
    files: dict[str, bytes]
    agreement: dict[str, object]


def compile_model(
    model: Any,
    signature: Signature,
    inputs: pd.DataFrame,
    *,
    package: Path | None = None,
    kind: str = "holdout",
    original_files: Mapping[str, bytes] | None = None,
) -> Compiled:
    """The fastest runtime that agrees with ``model``.

    Args:
        model: The fitted model, as the team's training function returned it.
        signature: Its inputs, in the order of the frame that it was fitted on.
        inputs: Holdout rows, a frame made by ``frames.as_frame`` with the training categories.
        package: Import root of the team's code; it goes into the bundle when the original model does.
        kind: What ``inputs`` are when they are no holdout, for the evidence.
        original_files: The MLflow folder that ``model`` was loaded from, by path in the bundle; None: it is written.

    Raises:
        Invalid: The model cannot answer a frame of this signature, answers another shape or other classes, or can
            neither be compiled nor answers the same once it is saved and read back.
    """
    original.check_classes(model, signature)
    categories = training_categories(inputs)

    def ask(rows: list[agreement.Row]) -> list[agreement.Answer]:
        return original.predict(model, as_frame(rows, signature, categories), signature).tolist()  # type: ignore[no-any-return]

    holdout = rows_of_frame(inputs, signature)
    if not holdout:
        raise Invalid("Expected holdout rows to compare the compiled model on, got none.")
    ask(holdout[:1])  # a model that cannot answer at all says so here, in its own words
    tried = agreement.trial(ask, holdout, signature, kind)
    is_single = original.is_single(model, inputs.head(1), signature)
    shared = {
        CATEGORIES_FILE: msgspec.json.encode(categories),
        BACKGROUND_FILE: msgspec.json.encode(holdout[:: max(1, len(holdout) // BACKGROUND_ROWS)][:BACKGROUND_ROWS]),
    }
    refused: list[dict[str, str]] = []
    for name, compiler in COMPILERS:
        try:
            files = shared | dict(compiler(model, signature, categories))
            tolerance = _tolerance(name, is_single=is_single)
            compared = compare(open_runtime(name, files, signature), tried, tolerance)
        except Exception as error:
            refused.append({"runtime": name, "reason": _reason(error)})
            continue
        if compared.disagreement is None:
            return Compiled(name, files | _probe(tried, tolerance), _evidence(name, compared, refused))
        refused.append({"runtime": name, "reason": compared.disagreement})
    saved = model_files(model, package) if original_files is None else dict(original_files)
    files = shared | _probe(tried, agreement.TOLERANCE) | saved
    return Compiled(ISOLATED, files, _evidence(ISOLATED, _isolated(files, signature, tried), refused))


def _tolerance(runtime: str, *, is_single: bool) -> float:
    """Two ways to add in float32 differ in the last digits; a booster's own library adds as the original does."""
    is_other = runtime.startswith("onnx")
    return agreement.SINGLE_TOLERANCE if runtime == "onnx-float32" or (is_other and is_single) else agreement.TOLERANCE


def compare(runtime: Runtime, tried: agreement.Trial, tolerance: float = agreement.TOLERANCE) -> agreement.Agreement:
    """How ``runtime`` agrees with the trial; closes it."""
    try:
        return agreement.check(lambda rows: runtime.predict(rows), tried, tolerance)
    finally:
        runtime.close()


def _isolated(files: Mapping[str, bytes], signature: Signature, tried: agreement.Trial) -> agreement.Agreement:
    """The original, saved and read back in a child of its own, compared with itself here."""
    with tempfile.TemporaryDirectory(prefix="relevo-") as name:
        for path, content in files.items():
            place = Path(name, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        compared = compare(IsolatedRuntime(Path(name), signature), agreement.thinned(tried, ISOLATED_ROWS))
    if compared.disagreement is not None:
        raise Invalid(f"The model answers otherwise once it is saved and read back. {compared.disagreement}")
    return compared


def training_categories(inputs: pd.DataFrame) -> dict[str, list[str]]:
    """The categories of each categorical column of a model frame."""
    return {
        str(name): [str(value) for value in dtype.categories]
        for name, dtype in inputs.dtypes.items()
        if hasattr(dtype, "categories")
    }


def _probe(tried: agreement.Trial, tolerance: float) -> dict[str, bytes]:
    """A few rows of every kind that the original answers, each with its answer."""
    places = [i for i, answer in enumerate(tried.expected) if answer is not None]
    kinds = dict.fromkeys(tried.kinds[i] for i in places)
    each = max(1, PROBE_ROWS // max(1, len(kinds)))
    chosen = [i for kind in kinds for i in [i for i in places if tried.kinds[i] == kind][:each]]
    chosen = [i for i in chosen if _is_finite(tried.expected[i])]
    probe = Probe(
        rows=[tried.rows[i] for i in chosen],
        outputs=[tried.expected[i] for i in chosen],  # type: ignore[misc]
        tolerance=tolerance,
    )
    return {PROBE_FILE: msgspec.json.encode(probe)}


def _is_finite(answer: agreement.Answer | None) -> bool:
    numbers = answer if isinstance(answer, list) else [answer]
    return all(number is not None and abs(number) < float("inf") for number in numbers)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, RelevoError) else f"{type(error).__name__}: {error}"[:500]


def _evidence(runtime: str, compared: agreement.Agreement, refused: list[dict[str, str]]) -> dict[str, object]:
    return {"runtime": runtime, "refused": refused, **to_json(compared)}
