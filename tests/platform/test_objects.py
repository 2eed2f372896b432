import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relevo.errors import Corrupted, Invalid, NotFound
from relevo.platform.objects import Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def blob_file(objects: Objects, sha256: str) -> Path:
    return objects.root / "blobs" / sha256[:2] / sha256


def test_a_blob_is_named_by_its_digest(objects: Objects) -> None:
    sha256 = objects.put_blob(b"model")
    assert sha256 == hashlib.sha256(b"model").hexdigest()
    assert objects.get_blob(sha256) == b"model"
    assert objects.has_blob(sha256)
    assert not objects.has_blob("0" * 64)


def test_a_changed_blob_is_refused_and_healed_by_its_content(objects: Objects) -> None:
    sha256 = objects.put_blob(b"model")
    blob_file(objects, sha256).write_bytes(b"other")
    with pytest.raises(Corrupted, match=sha256):
        objects.get_blob(sha256)
    objects.put_blob(b"model")
    assert objects.get_blob(sha256) == b"model"


def test_the_same_blob_is_written_once(objects: Objects) -> None:
    sha256 = objects.put_blob(b"model")
    before = blob_file(objects, sha256).stat()
    objects.put_blob(b"model")
    assert blob_file(objects, sha256).stat().st_ino == before.st_ino


def test_an_empty_blob_and_many_writers(objects: Objects) -> None:
    assert objects.get_blob(objects.put_blob(b"")) == b""
    content = b"x" * 100_000
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: objects.put_blob(content), range(32)))
    assert [objects.get_blob(name) for name in names] == [content]


def test_objects_are_replaced_listed_and_deleted(objects: Objects) -> None:
    objects.put("bundles/a/manifest.json", b"1")
    objects.put("bundles/a/manifest.json", b"2")
    objects.put("bundles/b", b"3")
    objects.put("other", b"4")
    assert objects.get("bundles/a/manifest.json") == b"2"
    assert objects.list("bundles") == ["bundles/a/manifest.json", "bundles/b"]
    assert objects.list() == ["bundles/a/manifest.json", "bundles/b", "other"]
    objects.delete("bundles/b")
    objects.delete("bundles/b")
    assert not objects.exists("bundles/b")
    assert objects.list("nothing") == []


def test_what_is_missing_is_named(objects: Objects) -> None:
    with pytest.raises(NotFound, match="nope"):
        objects.get("nope")
    with pytest.raises(NotFound):
        objects.get_blob("0" * 64)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\\b", "a\x00b", "a/"])
def test_a_path_that_leaves_the_root_is_refused(objects: Objects, path: str) -> None:
    with pytest.raises(Invalid):
        objects.put(path, b"x")


@pytest.mark.parametrize("name", ["", "abc", "../" * 21 + "x", "A" * 64])
def test_a_blob_name_that_is_no_digest_is_refused(objects: Objects, name: str) -> None:
    with pytest.raises(Invalid):
        objects.get_blob(name)
