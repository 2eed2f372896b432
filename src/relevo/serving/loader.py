"""From a placement to a version that may take traffic: fetch, verify, load, probe, warm. Runs in a thread."""

from __future__ import annotations

import msgspec

from relevo.errors import Corrupted, Invalid
from relevo.registry.bundles import BundleCache, read_manifest
from relevo.registry.model import Manifest
from relevo.runtimes.exchange import Answer, MlflowJson, Question
from relevo.runtimes.loading import LoadedRuntime, load_runtime
from relevo.serving.model import Placement
from relevo.serving.versions import LoadedVersion

#: Sealed rows that are tried for one that a caller could send.
_WARM_ROWS = 20
#: What any version takes beside its model: signature, decoders, layouts. A rough figure.
VERSION_BYTES = 100_000
#: A model in memory, by its file: a booster takes about as much as its text, coefficients up to three times their JSON.
FILE_FACTOR = 3


def load(placement: Placement, bundles: BundleCache) -> LoadedVersion:
    """The loaded, probed and warmed version.

    Raises:
        RelevoError: The bundle cannot be had, is not what was sealed, or its runtime fails on its own sample.
    """
    folder = bundles.fetch(placement.bundle)
    manifest = read_manifest(folder)
    if (manifest.model, manifest.version) != (placement.endpoint, placement.version):
        raise Corrupted(
            f"Bundle {placement.bundle[:12]} holds {manifest.model}/{manifest.version}, "
            f"expected {placement.endpoint}/{placement.version}."
        )
    runtime = load_runtime(folder, manifest, python=bundles.python(folder))
    try:
        runtime.probe()
        version = LoadedVersion(placement.endpoint, placement.version, placement.bundle, manifest, runtime)
        _warm(version)
        version.memory_bytes = memory_bytes(manifest, runtime)
        return version
    except BaseException:
        runtime.close()
        raise


def _warm(version: LoadedVersion) -> None:
    """Answer one sealed row as a caller's, so that no caller pays for what only the first request has to make."""
    exchange = version.exchange(MlflowJson)
    for row in version.runtime.sample[:_WARM_ROWS]:
        columns = [column.name for column in version.signature.inputs]
        body = msgspec.json.encode({"dataframe_split": {"columns": columns, "data": [row]}})
        try:
            request = exchange.decode(Question(body))
        except Invalid:  # a sealed row may hold what the original answers and a caller may not send
            continue
        exchange.encode(request, Answer(version.runtime.predict(request.rows), version.version, [""]))
        version.filling(request.sent)
        return


def memory_bytes(manifest: Manifest, runtime: LoadedRuntime) -> int:
    """What the version takes in memory: its process's own memory, or a multiple of the files that a runtime is made of.

    Not the growth of this process, which says as much of what happens beside the load.
    """
    process = runtime.process_bytes
    if process is not None:
        return process
    files = sum(file.size_bytes for file in manifest.files if file.path.startswith("runtime/"))
    return VERSION_BYTES + FILE_FACTOR * files
