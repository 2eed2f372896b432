"""A project travels as one zip: complete, deterministic, and never outside its folder."""

from __future__ import annotations

import io
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from relevo.contract import snapshot as snapshots
from relevo.contract import upload as uploads
from relevo.contract.snapshot import Snapshots, pack, unpack
from relevo.contract.upload import parse_upload, read_project
from relevo.errors import Corrupted, Invalid, NotFound, TooLarge
from relevo.platform.objects import Objects

CONTRACT = """\
model: churn
owner: me
task: regression
package: churn
sources: {data: {loader: "churn.sources:data", key: [row]}}
ask: {source: data, inputs: [a, b]}
label: {column: y, source: data}
training: {entry: "churn.train:train"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "churn-project"
    (folder / "churn" / "deep").mkdir(parents=True)
    (folder / "relevo.yaml").write_text(CONTRACT)
    (folder / "churn" / "sources.py").write_text("def data(): ...\n")
    (folder / "churn" / "deep" / "table.csv").write_text("a,b\n1,2\n")
    (folder / "requirements.lock").write_text("numpy==2.4.0\n")
    return folder


def _zip(**files: bytes) -> bytes:
    return pack({"relevo.yaml": CONTRACT.encode(), "churn/a.py": b"", **files}, compressed=True)


def test_a_project_is_packed_whole_and_without_leftovers(folder: Path) -> None:
    (folder / "churn" / "__pycache__").mkdir()
    (folder / "churn" / "__pycache__" / "sources.cpython-311.pyc").write_bytes(b"compiled")
    (folder / "churn" / ".secret").write_text("password")
    (folder / "notes.txt").write_text("not part of it")
    (folder / "churn" / "outside").symlink_to("/etc/hostname")
    upload = parse_upload(read_project(folder))
    assert sorted(upload.files) == ["churn/deep/table.csv", "churn/sources.py", "requirements.lock"]
    assert upload.text == CONTRACT
    assert upload.parsed.contract.model == "churn"
    assert upload.git_commit is None


def test_equal_folders_give_equal_bytes(folder: Path) -> None:
    first = read_project(folder)
    (folder / "churn" / "sources.py").touch()
    assert read_project(folder) == first


def test_the_commit_says_whether_the_folder_had_changes(folder: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    assert parse_upload(read_project(folder)).git_commit is None
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    clean = parse_upload(read_project(folder))
    assert clean.git_commit == commit
    (folder / "churn" / "sources.py").write_text("def data(): return 1\n")
    assert parse_upload(read_project(folder)).git_commit == f"{commit}-dirty"


def test_a_folder_without_a_project_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NotFound, match=r"no relevo\.yaml"):
        read_project(tmp_path)
    (folder / "churn").rename(folder / "chrun")
    with pytest.raises(Invalid, match=r"relevo\.yaml:4: package: expected a folder churn .* did you mean 'chrun'"):
        read_project(folder)
    (folder / "relevo.yaml").write_bytes(b"model: churn\nowner: \xff\n")
    with pytest.raises(Invalid, match=r"relevo\.yaml:2: expected UTF-8 text, got the byte 0xff"):
        read_project(folder)


def test_a_project_that_is_too_large_names_its_largest_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 300)
    (folder / "churn" / "big.csv").write_text("x" * 5000)
    with pytest.raises(TooLarge, match=r"churn/big\.csv \(5000 bytes\)"):
        read_project(folder)
    with pytest.raises(TooLarge):
        parse_upload(b"x" * 301)


@pytest.mark.parametrize(
    "path",
    ["../evil.py", "/etc/evil.py", "churn/../../evil.py", "churn\\evil.py", "churn//a.py", "C:/evil.py", "churn/./a"],
)
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="not a plain file inside the project"):
        parse_upload(_zip(**{path: b"evil"}))


def test_links_and_doubled_paths_are_refused() -> None:
    for kind, name in ((stat.S_IFLNK, "churn/link.py"), (stat.S_IFREG, "churn/A.py")):
        content = io.BytesIO(_zip())
        with zipfile.ZipFile(content, "a") as archive:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (kind | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
        with pytest.raises(Invalid, match=r"not a plain file|twice"):
            parse_upload(content.getvalue())


@pytest.mark.parametrize("content", [b"", b"not a zip", _zip()[:-30], _zip()[: len(_zip()) // 2]])
def test_what_is_no_zip_is_refused(content: bytes) -> None:
    with pytest.raises(Invalid, match="cannot be read as a zip file"):
        parse_upload(content)


def test_damaged_contents_are_refused() -> None:
    content = bytearray(_zip())
    content[60:70] = b"\xff" * 10  # inside the first file's compressed bytes
    with pytest.raises(Invalid):
        parse_upload(bytes(content))


def test_a_zip_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MAX_UNPACKED_BYTES", 10_000)
    with pytest.raises(TooLarge, match="unpacks to"):
        parse_upload(_zip(**{"churn/zeros.bin": bytes(20_000)}))
    monkeypatch.setattr(snapshots, "MAX_FILES", 2)
    with pytest.raises(TooLarge, match="holds 3 files"):
        parse_upload(_zip(**{"churn/b.py": b""}))


def _with_files(folder: Path, pattern: str) -> None:
    text = (folder / "relevo.yaml").read_text()
    (folder / "relevo.yaml").write_text(text.replace('loader: "churn.sources:data"', f'files: "{pattern}"'))


def test_files_of_a_source_travel_with_the_project(folder: Path) -> None:
    _with_files(folder, "data/*/rows-*.csv")
    (folder / "data" / "a").mkdir(parents=True)
    for name in ("a/rows-1.csv", "a/other.csv", "rows-2.csv", "a/rows-3.parquet"):
        (folder / "data" / name).write_text("row,a,b,y\n")
    upload = parse_upload(read_project(folder))
    assert [path for path in upload.files if path.startswith("data")] == ["data/a/rows-1.csv"]


def test_a_pattern_that_matches_no_file_of_the_project_is_named(folder: Path) -> None:
    _with_files(folder, "data/*.csv")
    with pytest.raises(Invalid, match=r"sources\.data\.files: expected at least one file data/\*\.csv in .*, got none"):
        read_project(folder)


def test_files_outside_the_package_are_refused() -> None:
    with pytest.raises(
        Invalid, match=r"holds 'other/a\.py'; expected relevo\.yaml, requirements\.lock, files of sources"
    ):
        parse_upload(_zip(**{"other/a.py": b""}))
    with pytest.raises(Invalid, match=r"holds no relevo\.yaml"):
        parse_upload(pack({"churn/a.py": b""}, compressed=True))
    with pytest.raises(Invalid, match=r"package: expected Python files under churn/, got none"):
        parse_upload(pack({"relevo.yaml": CONTRACT.encode()}, compressed=True))


def test_a_commit_that_is_none_is_not_taken_over() -> None:
    for origin in (b"{", b"[]", b'{"git_commit": "<script>"}', b'{"git_commit": 3}'):
        assert parse_upload(_zip(**{"relevo-origin.json": origin})).git_commit is None


def test_a_snapshot_is_the_same_whenever_its_files_are(tmp_path: Path) -> None:
    kept = Snapshots(Objects(tmp_path / "objects"), tmp_path / "snapshots")
    digest = kept.keep({"b/c.py": b"2", "a.py": b"1"})
    assert kept.keep({"a.py": b"1", "b/c.py": b"2"}) == digest
    assert kept.keep({"a.py": b"1", "b/c.py": b"3"}) != digest
    folder = kept.folder(digest)
    assert kept.folder(digest) == folder
    assert (folder / "b" / "c.py").read_bytes() == b"2"
    assert stat.S_IMODE((folder / "b" / "c.py").stat().st_mode) == 0o444
    assert [path.name for path in folder.parent.iterdir()] == [digest]


def test_a_snapshot_that_was_changed_is_never_unpacked(tmp_path: Path) -> None:
    objects = Objects(tmp_path / "objects")
    kept = Snapshots(objects, tmp_path / "snapshots")
    digest = kept.keep({"a.py": b"1"})
    objects.put(f"blobs/{digest[:2]}/{digest}", pack({"a.py": b"evil"}, compressed=False))
    with pytest.raises(Corrupted):
        kept.folder(digest)
    with pytest.raises(NotFound):
        kept.folder("0" * 64)
    assert unpack(pack({"a": b""}, compressed=True)) == {"a": b""}
