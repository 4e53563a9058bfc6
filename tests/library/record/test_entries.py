"""Entries: what keys and patterns cover, and what a failure keeps."""

import pytest

from mnist_fp8.record.entries import AREAS, Failure, covers
from support.comparing import EVERY_KIND


def test_every_area_of_an_entry_is_known() -> None:
    assert {key.partition("/")[0] for key in EVERY_KIND} <= AREAS.keys()


def test_failure_keeps_the_kind_and_the_first_line() -> None:
    assert Failure.of(ValueError("one\ntwo")) == Failure("ValueError: one")
    assert Failure.of(KeyError()) == Failure("KeyError: ")


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("a", True),
        ("a/", True),
        ("a/b c", True),
        ("a/b c/d", True),
        ("a/b*", True),
        ("*/d", True),
        ("a/b", False),
        ("b", False),
        ("A", False),
    ],
)
def test_pattern_names_a_key_by_its_beginning_or_by_words_with_stars(pattern: str, *, covered: bool) -> None:
    assert covers(pattern, "a/b c/d") is covered
