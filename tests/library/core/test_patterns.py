"""Patterns of names."""

import pytest

from mnist_fp8.core.patterns import matches


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("test_a.py::test_x", "test_a.py::test_x", True),
        ("test_a.py::test_x", "test_a.py::test_x[one]", False),
        ("test_a.py::test_x[one]", "test_a.py::test_x[one]", True),
        ("test_a.py::test_x[one*]", "test_a.py::test_x[one-two]", True),
        ("*::*[*two*]", "test_a.py::test_x[one-two]", True),
        ("*::*[one]", "test_a.py::test_x[n]", False),
        ("bits/x why?", "bits/x whyX", False),
        ("bits/*", "bits/x\ny", True),
        ("bits/x", "bits/X", False),
    ],
)
def test_star_stands_for_any_text_and_all_else_for_itself(pattern: str, name: str, *, fits: bool) -> None:
    assert matches(pattern, name) is fits
