"""Bundles: written by the training child, sealed by the control plane, fetched and verified by whoever loads one.

Light: the gateway imports this.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relevo.errors import Corrupted, Invalid, NotFound
from relevo.features.expressions import Transform
from relevo.features.model import FeatureView
from relevo.platform.encoding import canonical, parse, to_json
from relevo.platform.environments import python_for
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.registry.keys import is_signed, load_public_key
from relevo.registry.model import BundleFile, Manifest
from relevo.runtimes.model import Signature

#: The manifest's place in a bundle, in canonical JSON: the SHA-256 of these bytes is the bundle's digest.
MANIFEST_FILE = "manifest.json"
#: The Ed25519 signature of the manifest's bytes, beside it in a fetched bundle.
SIGNATURE_FILE = "manifest.sig"

#: The lock of the team's package, when it has one.
LOCK_FILE = "requirements.lock"
_OWN_FILES = frozenset({MANIFEST_FILE, SIGNATURE_FILE})


def write_bundle(
    folder: Path,
    *,
    model: str,
    version: int,
    run_id: str,
    runtime: str,
    signature: Signature,
    files: Mapping[str, bytes],
    views: Sequence[FeatureView] = (),
    facts: Mapping[str, object] | None = None,
    transforms: Sequence[Transform] = (),
) -> Manifest:
    """Write the files and their manifest into ``folder``, which must be empty or missing.

    Args:
        folder: Where.
        model: Name of the model.
        version: Its number, MLflow's.
        run_id: The run that made it.
        runtime: Name of the runtime that loads it.
        signature: Inputs and output.
        files: Content by relative path, such as ``runtime/linear.json``.
        views: Feature views that fill inputs which the caller does not send.
        facts: What else is known of the version; anything that converts to plain JSON.
        transforms: Compute inputs that the caller does not send.

    Raises:
        Invalid: The folder holds something, or a path is not inside it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Invalid(f"Expected an empty folder for the bundle, {folder} holds something.")
    for path, content in files.items():
        place = folder / _checked(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        model=model,
        version=version,
        run_id=run_id,
        runtime=runtime,
        signature=signature,
        views=tuple(views),
        files=tuple(
            BundleFile(path, hashlib.sha256(content).hexdigest(), len(content))
            for path, content in sorted(files.items())
        ),
        facts=to_json(dict(facts or {})),
        transforms=tuple(transforms),
    )
    (folder / MANIFEST_FILE).write_bytes(canonical(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``; it says nothing about whether the files are the right ones.

    Raises:
        Corrupted: There is none, or it is not one.
    """
    try:
        return _parsed((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise Corrupted(f"There is no {MANIFEST_FILE} in {folder}.") from None


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compares every file with the manifest.

    Raises:
        Corrupted: Names the first file that is missing, differs, or does not belong there.
    """
    listed = {file.path: file for file in manifest.files}
    found = set(_files(folder))
    for path in sorted(found - listed.keys() - _OWN_FILES):
        raise Corrupted(f"The bundle of {_label(manifest)} holds {path!r}, which its manifest does not name.")
    for path, file in listed.items():
        if path not in found:
            raise Corrupted(f"The bundle of {_label(manifest)} lacks {path}.")
        digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        if digest != file.sha256:
            raise Corrupted(
                f"{path} of the bundle of {_label(manifest)} was changed: "
                f"expected SHA-256 {file.sha256[:12]}, got {digest[:12]}."
            )


def store_bundle(folder: Path, manifest: Manifest, objects: Objects, key: Ed25519PrivateKey) -> str:
    """Signs the bundle in ``folder`` and keeps it; gives its digest. Storing the same again changes nothing.

    Raises:
        Corrupted: The files are not those of the manifest.
    """
    verify_files(folder, manifest)
    for file in manifest.files:
        stored = objects.put_blob((folder / file.path).read_bytes())
        if stored != file.sha256:
            raise Corrupted(f"{file.path} of the bundle of {_label(manifest)} was changed while it was sealed.")
    content = canonical(manifest)
    digest = objects.put_blob(content)
    objects.put(_signature_path(digest), key.sign(content))
    return digest


class BundleCache:
    """Verified bundles in local folders. Safe for several processes on one home.

    Args:
        objects: Where sealed bundles are kept.
        settings: Give the home folder, with ``keys/signing.pub`` and ``cache/bundles``.
    """

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self._objects = objects
        self._settings = settings
        self._keys = settings.folder("keys")
        self._root = settings.folder("cache", "bundles")

    def python(self, folder: Path) -> Path:
        """The interpreter for the original model of the bundle in ``folder``: that of its lock, else this one.

        Raises:
            JobFailed: The environment cannot be built.
        """
        lock = folder / LOCK_FILE
        return python_for(lock if lock.is_file() else None, self._settings)

    def fetch(self, digest: str) -> Path:
        """The folder of that bundle, every byte of which was just compared with what was signed.

        Raises:
            NotFound: The bundle is not in the object store.
            Corrupted: Something is not what was sealed; the message names the file.
        """
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Invalid(f"A bundle is named by 64 lower-case hex digits, got {digest[:80]!r}.")
        folder = self._root / digest
        if not folder.exists():
            self._download(digest, folder)
        self._verify(digest, folder)
        return folder

    def _verify(self, digest: str, folder: Path) -> None:
        try:
            content = (folder / MANIFEST_FILE).read_bytes()
            signature = (folder / SIGNATURE_FILE).read_bytes()
        except FileNotFoundError as error:
            raise Corrupted(f"The bundle {digest[:12]} lacks {Path(error.filename).name}.") from None
        verify_files(folder, self._checked_manifest(digest, content, signature))

    def _checked_manifest(self, digest: str, content: bytes, signature: bytes) -> Manifest:
        if hashlib.sha256(content).hexdigest() != digest:
            raise Corrupted(f"{MANIFEST_FILE} of the bundle {digest[:12]} was changed.")
        if not is_signed(load_public_key(self._keys), signature, content):
            raise Corrupted(f"{SIGNATURE_FILE} of the bundle {digest[:12]} is not the signature of this installation.")
        return _parsed(content)

    def _download(self, digest: str, folder: Path) -> None:
        """Writes the bundle beside its place and moves it there, whole or not at all."""
        content = self._objects.get_blob(digest)
        signature = self._objects.get(_signature_path(digest))
        manifest = self._checked_manifest(digest, content, signature)
        draft = self._root / f".{digest}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            for file in manifest.files:
                _write(draft / _checked(file.path), self._blob(file, manifest))
            _write(draft / MANIFEST_FILE, content)
            _write(draft / SIGNATURE_FILE, signature)
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was first, and its copy is verified next
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _blob(self, file: BundleFile, manifest: Manifest) -> bytes:
        try:
            return self._objects.get_blob(file.sha256)
        except NotFound:
            raise Corrupted(f"The object store lacks {file.path} of the bundle of {_label(manifest)}.") from None
        except Corrupted as error:
            raise Corrupted(f"{file.path} of the bundle of {_label(manifest)} was changed: {error}") from None


def _parsed(content: bytes) -> Manifest:
    try:
        return parse(Manifest, msgspec.json.decode(content))
    except (msgspec.MsgspecError, Invalid) as error:
        raise Corrupted(f"{MANIFEST_FILE} is not a manifest: {error}") from None


def _label(manifest: Manifest) -> str:
    return f"{manifest.model}/{manifest.version}"


def _signature_path(digest: str) -> str:
    return f"bundles/{digest}.sig"


def _checked(path: str) -> str:
    parts = path.split("/")
    if path in _OWN_FILES or not path.isprintable() or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise Invalid(
            f"A file of a bundle has a relative path without dots, such as runtime/linear.json; got {path!r}."
        )
    return path


def _files(folder: Path) -> Iterator[str]:
    """Relative paths of everything that is no real folder; links count as files and match no digest by being one."""
    for parent, folders, files in os.walk(folder):
        for name in files + [name for name in folders if (Path(parent) / name).is_symlink()]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise Corrupted(f"{relative!r} in a bundle is not a plain file.")
            yield relative


def _write(path: Path, content: bytes) -> None:
    """Write to the disk, since a folder that exists is taken to be whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
