"""From a placement to a version that may take traffic: fetch, verify, load, probe. Runs in a thread."""

from __future__ import annotations

from relevo.errors import Corrupted
from relevo.registry.bundles import BundleCache, read_manifest
from relevo.runtimes.loading import load_runtime
from relevo.serving.model import Placement
from relevo.serving.versions import LoadedVersion


def load(placement: Placement, bundles: BundleCache) -> LoadedVersion:
    """The loaded and probed version.

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
        return LoadedVersion(placement.endpoint, placement.version, placement.bundle, manifest, runtime)
    except BaseException:
        runtime.close()
        raise
