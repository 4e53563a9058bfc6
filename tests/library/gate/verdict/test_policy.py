"""What a team accepts, and what a policy that says it wrongly is told."""

import datetime as dt
import errno
import os
from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.verdict.policy import Acceptance, load
from mnist_fp8.record.keys import AREAS

LAST_DAY = dt.date(2027, 3, 31)
ENTRY = """
[[accept]]
difference = "api/transformer_engine.jax.get_delayed_scaling"
reason = "we build recipes ourselves"
expires = 2027-03-31
"""
HOW = "write the last day on which it counts, without quotes: expires = 2027-03-31"


def policy(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def acceptance(pattern: str) -> Acceptance:
    return Acceptance(pattern, "why", LAST_DAY)


def test_entries_are_read_in_their_order(tmp_path: Path) -> None:
    second = ENTRY.replace("transformer_engine.jax.get_delayed_scaling", "*.praxis.*")
    assert load(policy(tmp_path, ENTRY + second)) == (
        Acceptance("api/transformer_engine.jax.get_delayed_scaling", "we build recipes ourselves", LAST_DAY),
        Acceptance("api/*.praxis.*", "we build recipes ourselves", LAST_DAY),
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "accept = []\n"])
def test_policy_may_accept_nothing(text: str, tmp_path: Path) -> None:
    assert load(policy(tmp_path, text)) == ()


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("api/jax.autocast", "api/jax.autocast", True),
        ("api/jax.autocast", "api/jax.autocast.more", False),
        ("api/jax.autocast", "api/jaxXautocast", False),
        ("api/jax.autocast", "api/jax.Autocast", False),
        ("api/*", "api/jax.autocast", True),
        ("api/*", "numerics/api/output", False),
        ("numerics/*/output", "numerics/a/b/output", True),
        ("*/output against float64", "numerics/a/output against float64", True),
        ("bits/x[0] why?", "bits/x[0] why?", True),
        ("bits/x[0]", "bits/x[1]", False),
    ],
)
def test_pattern_covers_keys(pattern: str, key: str, *, expected: bool) -> None:
    assert acceptance(pattern).covers(key) is expected


def test_last_day_still_counts() -> None:
    found = acceptance("api/jax.autocast")
    assert not found.expired(dt.date(2027, 3, 30))
    assert not found.expired(LAST_DAY)
    assert found.expired(dt.date(2027, 4, 1))


REFUSED_FILES: dict[str, tuple[str, str]] = {
    "another key": ("[[acept]]\n", " has 'acept'; expected nothing but [[accept]] entries"),
    "another key beside entries": ("version = 1\n" + ENTRY, " has 'version'; expected nothing but [[accept]] entries"),
    "a table": (
        ENTRY.replace("[[accept]]", "[accept]"),
        " has one accept; expected entries that each start with [[accept]]",
    ),
}
NO_DIFFERENCE = "no difference is named; expected difference = KEY, the key that a comparison shows"
NO_REASON = "it has no reason; expected reason = TEXT, so that others can judge whether it still holds"
NO_END = f"it has no end, and nothing is accepted for ever; {HOW}"
REFUSED_LINES: dict[str, tuple[str, str, str]] = {
    "no difference": ("difference", "", NO_DIFFERENCE),
    "empty difference": ("difference", 'difference = " "', NO_DIFFERENCE),
    "difference that is no text": ("difference", "difference = 1", NO_DIFFERENCE),
    "no reason": ("reason", "", NO_REASON),
    "empty reason": ("reason", 'reason = " "', NO_REASON),
    "reason that is no text": ("reason", "reason = true", NO_REASON),
    "no end": ("expires", "", NO_END),
    "end in quotes": ("expires", 'expires = "2027-03-31"', f"expires is '2027-03-31', which is no date; {HOW}"),
    "end that is no date": ("expires", "expires = 2027", f"expires is 2027, which is no date; {HOW}"),
    "end with a time": (
        "expires",
        "expires = 2027-03-31T12:00:00",
        f"expires is the date and time 2027-03-31 12:00:00; {HOW}",
    ),
    "misspelled key": (
        "expires",
        "expire = 2027-03-31",
        "unknown key 'expire'; expected difference, rule, reason, expires",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED_FILES.values(), ids=REFUSED_FILES)
def test_file_that_holds_something_else_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = policy(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"policy {path}{message}"


@pytest.mark.parametrize(("key", "line", "message"), REFUSED_LINES.values(), ids=REFUSED_LINES)
def test_wrong_entry_is_named_by_its_number(key: str, line: str, message: str, tmp_path: Path) -> None:
    lines = [line if each.startswith(key) else each for each in ENTRY.replace("get_delayed", "get").splitlines()]
    path = policy(tmp_path, ENTRY + "\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"policy {path}, entry 2: {message}"


@pytest.mark.parametrize(
    "pattern", ["*", "**", "*/*", "?*", "*.*", "*a*", "*e*/*", "*/output against float64", "numeric/*", "api*", "/*"]
)
def test_pattern_that_names_no_area_is_refused(pattern: str, tmp_path: Path) -> None:
    text = ENTRY.replace("api/transformer_engine.jax.get_delayed_scaling", pattern)
    with pytest.raises(ConfigError) as caught:
        load(policy(tmp_path, text))
    assert f", entry 1: {pattern!r} names no area, and may accept differences of all; " in str(caught.value)


@pytest.mark.parametrize("stars", ["*", "**", "*/*"])
def test_entries_that_accept_every_area_together_are_refused(stars: str, tmp_path: Path) -> None:
    name = "api/transformer_engine.jax.get_delayed_scaling"
    entries = {area: ENTRY.replace(name, f"{area}/{stars}") for area in AREAS}
    path = policy(tmp_path, "".join(entries.values()))
    with pytest.raises(ConfigError, match=r"accepts every area, and so every difference; name what you accept$"):
        load(path)
    del entries["claims"]
    assert len(load(policy(tmp_path, "".join(entries.values())))) == len(entries), "Control: all but one"


@pytest.mark.parametrize("rule", ["fails-now", "claim-broken", "claim-broken-before"])
def test_rule_of_whatever_does_not_work_is_no_acceptance_alone(rule: str, tmp_path: Path) -> None:
    alone = f'[[accept]]\nrule = "{rule}"\nreason = "why"\nexpires = 2027-03-31\n'
    with pytest.raises(ConfigError, match=f"rule '{rule}' alone accepts whatever does not work; name a difference"):
        load(policy(tmp_path, alone))
    (one,) = load(policy(tmp_path, alone + 'difference = "special/R/x"\n'))
    assert one.rule == rule


def test_nothing_is_accepted_for_longer_than_half_a_year(tmp_path: Path) -> None:
    path = policy(tmp_path, ENTRY)
    first = LAST_DAY - dt.timedelta(180)
    assert len(load(path, first)) == 1
    with pytest.raises(ConfigError) as caught:
        load(path, first - dt.timedelta(1))
    assert str(caught.value) == (
        f"policy {path}, entry 1: expires is 2027-03-31, and nothing is accepted for more than 180 days;"
        " expected 2027-03-30 or earlier, and to look at it again then"
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_policy_may_have_any_encoding_that_its_mark_names(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(ENTRY, encoding=encoding)
    assert len(load(path)) == 1


def test_pattern_that_comes_twice_is_refused(tmp_path: Path) -> None:
    path = policy(tmp_path, ENTRY + ENTRY)
    with pytest.raises(ConfigError) as caught:
        load(path)
    key = "api/transformer_engine.jax.get_delayed_scaling"
    assert str(caught.value) == f"policy {path}, entry 2: an earlier entry accepts {key!r}, too; keep one of them"


def test_entry_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = policy(tmp_path, 'accept = ["api/*"]')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"policy {path}, entry 1: it is 'api/*'; expected a table that starts with [[accept]]"


def test_file_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"policy {path} cannot be read: {os.strerror(errno.ENOENT)}"


@pytest.mark.parametrize(
    "content", [b"[[accept]\n", b"accept = \xff\n", b"difference: api", b"a=" + b"[" * 100_000, b"a={b=" * 50_000]
)
def test_file_that_is_no_toml_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"policy {path} is no TOML file: ")
    assert "\n" not in str(caught.value)
