"""Versions are sealed once, and nothing is fetched that is not what was sealed."""

from __future__ import annotations

import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relevo.contract.model import Task
from relevo.errors import Conflict, Corrupted, Invalid, NotFound, Unavailable
from relevo.features.model import Aggregation, Entity, Feature, FeatureView
from relevo.ledger.service import Ledger
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.registry.bundles import MANIFEST_FILE, SIGNATURE_FILE, BundleCache, read_manifest, write_bundle
from relevo.registry.keys import PRIVATE_FILE, PUBLIC_FILE, load_signing_key
from relevo.registry.model import Manifest, Stage
from relevo.registry.service import Registry
from relevo.runtimes.model import Column, ColumnType, Signature

AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
SIGNATURE = Signature(Task.REGRESSION, (Column("x", ColumnType.FLOAT, view="weather"),))
VIEW = FeatureView(
    "weather",
    entity=Entity("airport", ("origin",)),
    source="weather",
    features=(Feature("x", Aggregation.LATEST, "wind", None),),
    ttl=timedelta(hours=6),
)
FILES = {"runtime/linear.json": b"{}", "baseline.json": b"[1, 2]", "model/code/empty": b""}


def written(folder: Path, version: int = 1, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "model": "flight-delay",
        "version": version,
        "run_id": "r1",
        "runtime": "linear",
        "signature": SIGNATURE,
        "views": (VIEW,),
        "files": FILES,
        "facts": {"metrics": {"rmse": 1.5}, "as_of": AS_OF},
    }
    return write_bundle(folder, **{**fields, **changes})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def objects(settings: Settings) -> Objects:
    return Objects(settings.folder("objects"))


@pytest.fixture
def registry(state: State, objects: Objects, settings: Settings) -> Registry:
    return Registry(state, objects, settings, Ledger(state))


def sealed(registry: Registry, state: State, folder: Path, version: int = 1, workflow_id: str = "w1") -> Any:
    if not folder.exists():
        written(folder, version)
    with state.transaction() as tx:
        return registry.seal(tx, folder, workflow_id=workflow_id, as_of=AS_OF)


def test_a_sealed_version_is_read_back_whole(
    registry: Registry, state: State, objects: Objects, settings: Settings, tmp_path: Path
) -> None:
    manifest = written(tmp_path / "run")
    version = sealed(registry, state, tmp_path / "run")
    assert version == registry.version("flight-delay", 1)
    assert version.stage is Stage.CANDIDATE
    assert version.facts == {"metrics": {"rmse": 1.5}, "as_of": "2013-04-01T00:00:00Z", "runtime": "linear"}
    shutil.rmtree(tmp_path / "run")
    folder = BundleCache(objects, settings).fetch(version.bundle)
    assert read_manifest(folder) == manifest
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert registry.fetch(version.bundle) == folder
    assert Ledger(state).entries("flight-delay/1")[0].evidence == version.bundle


def test_the_same_workflow_seals_once_and_another_is_refused(registry: Registry, state: State, tmp_path: Path) -> None:
    first = sealed(registry, state, tmp_path / "run")
    assert sealed(registry, state, tmp_path / "run") == first
    assert len(Ledger(state).entries("flight-delay/1")) == 1
    with pytest.raises(Conflict, match="flight-delay/1 is sealed already, by workflow w1"):
        sealed(registry, state, tmp_path / "run", workflow_id="w2")


def test_a_bundle_of_another_model_is_not_sealed(registry: Registry, state: State, tmp_path: Path) -> None:
    written(tmp_path / "run")
    with state.transaction() as tx, pytest.raises(Invalid, match="Expected a bundle of other"):
        registry.seal(tx, tmp_path / "run", workflow_id="w1", as_of=AS_OF, model="other")


def test_versions_move_through_their_stages_with_one_champion(registry: Registry, state: State, tmp_path: Path) -> None:
    for number in (1, 2):
        sealed(registry, state, tmp_path / f"run{number}", number, f"w{number}")
    assert registry.champion("flight-delay") is None
    for number in (1, 2, 2):
        with state.transaction() as tx:
            assert registry.set_stage(tx, "flight-delay", number, Stage.PRODUCTION).stage is Stage.PRODUCTION
            champion = registry.champion("flight-delay", tx)
            assert champion is not None and champion.number == number
    assert [(v.number, v.stage) for v in registry.versions("flight-delay")] == [
        (2, Stage.PRODUCTION),
        (1, Stage.ARCHIVED),
    ]
    with pytest.raises(NotFound, match="flight-delay/9; the newest are 2, 1"):
        registry.version("flight-delay", 9)
    with pytest.raises(NotFound, match="the model has none yet"):
        registry.version("other", 1)
    assert registry.versions("other") == []


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


BROKEN = {
    "changed file": (lambda folder: change(folder / "runtime/linear.json"), "runtime/linear.json .* was changed"),
    "missing file": (lambda folder: (folder / "baseline.json").unlink(), "lacks baseline.json"),
    "extra file": (lambda folder: (folder / "model/code/x.py").write_text("1"), "'model/code/x.py'"),
    "linked file": (lambda folder: link(folder / "runtime/linear.json"), "'runtime/linear.json' .* not a plain file"),
    "linked folder": (lambda folder: (folder / "more").symlink_to(folder.parent), "'more' .* not a plain file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle_is_not_sealed(case: str, registry: Registry, state: State, tmp_path: Path) -> None:
    spoil, words = BROKEN[case]
    written(tmp_path / "run")
    spoil(tmp_path / "run")
    with pytest.raises(Corrupted, match=words):
        sealed(registry, state, tmp_path / "run")
    assert registry.versions("flight-delay") == []


FETCHED_BROKEN = BROKEN | {
    "changed manifest": (lambda folder: change(folder / MANIFEST_FILE), "manifest.json .* was changed"),
    "missing manifest": (lambda folder: (folder / MANIFEST_FILE).unlink(), "lacks manifest.json"),
    "changed signature": (lambda folder: change(folder / SIGNATURE_FILE), "manifest.sig .* is not the signature"),
    "missing signature": (lambda folder: (folder / SIGNATURE_FILE).unlink(), "lacks manifest.sig"),
}


@pytest.fixture
def one(tmp_path: Path, objects: Objects, settings: Settings) -> tuple[BundleCache, str]:
    """A cache, and the digest of a bundle that it can fetch; without a state store."""
    from relevo.registry.bundles import store_bundle

    manifest = written(tmp_path / "run")
    digest = store_bundle(tmp_path / "run", manifest, objects, load_signing_key(settings.folder("keys")))
    return BundleCache(objects, settings), digest


@pytest.mark.parametrize("case", FETCHED_BROKEN)
def test_a_broken_local_copy_is_refused(case: str, one: tuple[BundleCache, str]) -> None:
    cache, digest = one
    spoil, words = FETCHED_BROKEN[case]
    spoil(cache.fetch(digest))
    with pytest.raises(Corrupted, match=words):
        cache.fetch(digest)


@pytest.mark.parametrize("name", FILES)
def test_a_broken_stored_file_is_refused_and_leaves_nothing(
    name: str, one: tuple[BundleCache, str], objects: Objects, settings: Settings, tmp_path: Path
) -> None:
    cache, digest = one
    sha256 = next(file.sha256 for file in read_manifest(tmp_path / "run").files if file.path == name)
    blob = objects.root / "blobs" / sha256[:2] / sha256
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(Corrupted, match=name):
        cache.fetch(digest)
    blob.unlink()
    with pytest.raises(Corrupted, match=f"lacks {name}"):
        cache.fetch(digest)
    assert list(settings.folder("cache", "bundles").iterdir()) == []


def test_a_signature_of_another_key_is_refused(one: tuple[BundleCache, str], objects: Objects) -> None:
    cache, digest = one
    objects.put(f"bundles/{digest}.sig", Ed25519PrivateKey.generate().sign(objects.get_blob(digest)))
    with pytest.raises(Corrupted, match="not the signature of this installation"):
        cache.fetch(digest)


def test_an_unknown_bundle_is_not_found(one: tuple[BundleCache, str]) -> None:
    cache, _ = one
    with pytest.raises(NotFound):
        cache.fetch("0" * 64)
    with pytest.raises(Invalid, match="64 lower-case hex digits"):
        cache.fetch("../../etc/passwd")


def test_several_may_fetch_at_once(one: tuple[BundleCache, str], settings: Settings) -> None:
    cache, digest = one
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(cache.fetch, [digest] * 16))
    assert [folder.name for folder in settings.folder("cache", "bundles").iterdir()] == [digest]
    assert len(folders) == 1


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupted, match="no manifest"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text('{"model": 1}')
    with pytest.raises(Corrupted, match="is not a manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/./b", "", MANIFEST_FILE, SIGNATURE_FILE, "a\\b", "a\nb"])
def test_a_file_outside_the_bundle_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="relative path"):
        written(tmp_path / "run", files={path: b""})


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "run")
    with pytest.raises(Invalid, match="holds something"):
        written(tmp_path / "run")


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = {key.private_bytes_raw() for key in pool.map(load_signing_key, [tmp_path / "keys"] * 8)}
    assert len(keys) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [PRIVATE_FILE, PUBLIC_FILE]
    assert stat.S_IMODE((tmp_path / "keys" / PRIVATE_FILE).stat().st_mode) == 0o600
    (tmp_path / "keys" / PUBLIC_FILE).unlink()
    load_signing_key(tmp_path / "keys")
    other = load_signing_key(tmp_path / "other")
    assert other.private_bytes_raw() not in keys
    shutil.copy(tmp_path / "other" / PUBLIC_FILE, tmp_path / "keys" / PUBLIC_FILE)
    with pytest.raises(Corrupted, match="does not belong to"):
        load_signing_key(tmp_path / "keys")
    (tmp_path / "other" / PRIVATE_FILE).write_bytes(b"torn")
    with pytest.raises(Corrupted, match="is no key"):
        load_signing_key(tmp_path / "other")


def test_a_gateway_without_the_public_key_waits(
    one: tuple[BundleCache, str], objects: Objects, settings: Settings
) -> None:
    cache, digest = one
    (settings.folder("keys") / PUBLIC_FILE).unlink()
    with pytest.raises(Unavailable, match="the control plane writes it"):
        cache.fetch(digest)
