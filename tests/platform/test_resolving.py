"""Requirements to locks: what the platform has is kept, and asked for only where it must differ."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from relevo.errors import Invalid, JobFailed
from relevo.platform.environments import is_satisfied, pins
from relevo.platform.resolving import resolve


def test_what_the_platform_has_is_locked_with_all_that_it_needs() -> None:
    lock = resolve(f"scikit-learn=={version('scikit-learn')}\n", "list")
    locked = {pin.name: str(pin.specifier) for pin in pins(lock, "lock")}
    assert locked.keys() >= {"scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl"}
    assert locked["numpy"] == f"=={version('numpy')}"
    assert all(is_satisfied(pin) for pin in pins(lock, "lock"))
    assert "pytest" not in locked


def test_an_extra_brings_what_it_needs() -> None:
    plain = resolve("uvicorn", "list")
    assert "httptools" not in plain and "httptools" in resolve("uvicorn[standard]", "list")


@pytest.mark.parametrize("line", ["-r other.txt", "-e .", "--constraint x", "-c /etc/passwd", "a @ file:///tmp/a.whl"])
def test_a_line_that_names_another_file_is_refused(line: str) -> None:
    with pytest.raises(Invalid, match="list:2"):
        resolve(f"numpy\n{line}\n", "list")


def test_requirements_that_no_version_meets_fail_in_uvs_words() -> None:
    with pytest.raises(JobFailed, match=r"list cannot be met.*relevo-has-no-such-package"):
        resolve(
            "relevo-has-no-such-package @ http://127.0.0.1:9/relevo_has_no_such_package-1.0-py3-none-any.whl", "list"
        )
