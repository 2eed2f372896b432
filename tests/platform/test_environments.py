import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from relevo.errors import Invalid, JobFailed
from relevo.platform.environments import pins, python_for
from relevo.platform.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with the wheels of ``relevo-trial`` 1.0 and of a ``msgspec`` 0.0.1 that shadows the platform's."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, number in (("relevo_trial", "1.0"), ("msgspec", "0.0.1")):
        info = f"{name}-{number}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{number}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", f"NUMBER = {number!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def write_lock(folder: Path, *lines: str) -> Path:
    lock = folder / "requirements.lock"
    lock.write_text("\n".join(lines) + "\n")
    return lock


def run(python: Path, code: str) -> str:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def test_no_lock_means_the_platforms_interpreter(settings: Settings) -> None:
    assert python_for(None, settings) == Path(sys.executable)


def test_a_lock_that_the_platform_satisfies_needs_no_environment(settings: Settings, tmp_path: Path) -> None:
    lock = write_lock(
        tmp_path,
        "# made by a tool",
        f"msgspec=={version('msgspec')} \\",
        "    --hash=sha256:" + "0" * 64,
        f"NumPy=={version('numpy')} ; python_version >= '3.0'  # why",
        "absent-package==1.0 ; sys_platform == 'win32'",
    )
    assert python_for(lock, settings) == Path(sys.executable)
    assert not (settings.root / "environments").exists()


def test_an_environment_has_the_pins_first_and_then_the_platform(
    settings: Settings, tmp_path: Path, wheels: Path
) -> None:
    lock = write_lock(tmp_path, "--no-index", f"--find-links {wheels}", "relevo-trial==1.0", "msgspec==0.0.1")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: python_for(lock, settings), range(2))
    assert first == second == python_for(lock, settings)
    assert first.is_relative_to(settings.root / "environments")
    code = "import msgspec, relevo, relevo_trial, numpy; print(relevo_trial.NUMBER, msgspec.NUMBER, numpy.__version__)"
    assert run(first, code) == f"1.0 0.0.1 {version('numpy')}"
    left = [path.name for path in first.parents[2].iterdir() if path.name.startswith(".building")]
    assert left == []


def test_a_lock_that_cannot_be_installed_says_why_and_leaves_nothing(
    settings: Settings, tmp_path: Path, wheels: Path
) -> None:
    lock = write_lock(tmp_path, "--no-index", f"--find-links {wheels}", "relevo-trial==9.9")
    with pytest.raises(JobFailed, match=r"(?s)requirements\.lock cannot be built.*relevo-trial==9\.9"):
        python_for(lock, settings)
    assert [path for path in (settings.root / "environments").iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize("line", ["not a requirement!", "-e .", "-r other.txt", "=1.0"])
def test_a_line_that_is_no_pin_is_named(settings: Settings, tmp_path: Path, line: str) -> None:
    lock = write_lock(tmp_path, "# header", "numpy==1.0", line)
    with pytest.raises(Invalid, match=r"requirements\.lock:3: "):
        python_for(lock, settings)


def test_continued_lines_and_comments_are_read_as_pip_reads_them() -> None:
    content = "a==1 \\\n  --hash=sha256:1 \\\n  --hash=sha256:2\n\n   # note\nb==2#x\nc[extra]==3.*\n"
    with pytest.raises(Invalid, match=r"lock:6"):
        pins(content, "lock")
    assert [str(pin) for pin in pins(content.replace("#x", " #x"), "lock")] == ["a==1", "b==2", "c[extra]==3.*"]
