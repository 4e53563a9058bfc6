"""A person's own pytest run that cannot verify anything: one line, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.subprocesses import ROOT, TIMEOUT_S, broken_package


def refused(variables: dict[str, str], *, first_on_path: Path | None = None) -> list[str]:
    """What pytest says on standard error, where it comes to no test."""
    path = [str(first_on_path)] if first_on_path else []
    path += [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/library/core/test_patterns.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "passed" not in done.stdout
    return done.stderr.split("\n")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1", "the suite needs pytest-timeout: install it, and unset PYTEST_DISABLE"),
        ("HYPOTHESIS_PROFILE", "nonsense", "HYPOTHESIS_PROFILE is 'nonsense'; expected dev, ci, nightly or mutants"),
        ("XDG_CACHE_HOME", "here", "XDG_CACHE_HOME is 'here'; expected an absolute path"),
        ("MNIST_FP8_CAPABILITY", "8.9", "MNIST_FP8_CAPABILITY is '8.9'; expected 9.0 or 10.0, or leave it unset"),
        ("MNIST_FP8_TE", "gpu", "MNIST_FP8_TE is 'gpu'; expected 'kernel' or 'host'"),
    ],
)
def test_variable_that_leaves_nothing_to_verify_is_named(variable: str, value: str, says: str) -> None:
    line, *rest = refused({variable: value})
    assert line.startswith("ERROR: ")
    assert says in line
    assert "".join(rest) == ""


@pytest.mark.parametrize("name", ["jax", "flax"])
def test_broken_package_is_named(name: str, tmp_path: Path) -> None:
    """Such as a JAX beside an ml_dtypes that is too old for it."""
    line, *rest = refused({}, first_on_path=broken_package(tmp_path, name))
    assert line.startswith(f"ERROR: nothing can be verified: {name}")
    assert f"cannot be imported: ImportError: a broken {name}; mnist-fp8 doctor says more" in line
    assert "".join(rest) == ""


def test_control_an_empty_profile_is_none() -> None:
    with pytest.raises(AssertionError, match=" passed"):
        refused({"HYPOTHESIS_PROFILE": ""})
