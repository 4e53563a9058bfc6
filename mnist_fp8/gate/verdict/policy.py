"""Differences that a team accepts, each with a reason and a last day.

A policy is a TOML file::

    [[accept]]
    difference = "api/transformer_engine.jax.get_delayed_scaling"  # key of an entry, or an area and a pattern with *
    rule = "api-name-removed"                                      # id of a rule; one of the two is enough
    reason = "we build recipes ourselves"
    expires = 2027-03-31
"""

import dataclasses
import datetime as dt
import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.patterns import matches
from mnist_fp8.core.reading import read_toml
from mnist_fp8.gate.verdict.rules.apply import RULES
from mnist_fp8.gate.verdict.rules.claims import BROKEN, BROKEN_BEFORE, DOES_NOT_START, FAILS_NOW
from mnist_fp8.record.keys import AREAS

_KEYS = ("difference", "rule", "reason", "expires")
_NEVER = (DOES_NOT_START.id,)
"""Rules whose differences nobody can accept: what does not start was not looked at."""
_OF_ANYTHING = (BROKEN.id, BROKEN_BEFORE.id, FAILS_NOW.id)
"""Rules that any entry or claim can come under: accepted alone, they would accept a release in which nothing works."""
MOST_DAYS = 180
"""For which a difference can be accepted: half a year, in which several releases come that it may hide something of."""


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """One entry of a policy.

    Attributes:
        pattern: key of an entry, or a pattern in which ``*`` stands for anything, slashes included.
        reason: why the team can live with it.
        expires: the last day on which it counts.
        rule: id of the rule that it has to come under; empty for any.
    """

    pattern: str
    reason: str
    expires: dt.date
    rule: str = ""

    @property
    def label(self) -> str:
        """Pattern and rule, as far as they are given."""
        return " ".join(filter(None, [self.rule, self.pattern]))

    def covers(self, key: str, rule: str = "") -> bool:
        """Whether it accepts the entry of that key under that rule."""
        if rule in _NEVER or self.rule not in ("", rule):
            return False
        return not self.pattern or matches(self.pattern, key)

    def expired(self, today: dt.date) -> bool:
        """Whether its last day is over."""
        return today > self.expires


def load(path: Path, today: dt.date | None = None) -> tuple[Acceptance, ...]:
    """Read a policy.

    Args:
        path: of the file.
        today: the day from which an entry may last for `MOST_DAYS`.

    Raises:
        ConfigError: the file cannot be read, or says something else; one line that names the entry.
    """
    latest = (today or dt.datetime.now(tz=dt.UTC).date()) + dt.timedelta(MOST_DAYS)
    found: dict[str, Acceptance] = {}
    for number, entry in enumerate(_entries(path), 1):
        try:
            acceptance = _acceptance(entry, found, latest)
        except ConfigError as error:
            raise ConfigError(f"policy {path}, entry {number}: {error}") from None
        found[acceptance.label] = acceptance
    whole = {one.pattern.partition("/")[0] for one in found.values() if _is_of_an_area(one)}
    if whole.issuperset(area for area in AREAS if area not in ("costs", "uses")):
        raise ConfigError(f"policy {path} accepts every area, and so every difference; name what you accept")
    return tuple(found.values())


def _is_of_an_area(acceptance: Acceptance) -> bool:
    """Whether it accepts all of an area, however many stars that is written with."""
    _, _, rest = acceptance.pattern.partition("/")
    return not acceptance.rule and rest != "" and set(rest) <= {"*", "/"}


def _entries(path: Path) -> list[Any]:
    try:
        document = read_toml(path)
    except OSError as error:
        raise ConfigError(f"policy {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"policy {path} is no TOML file: {error}") from error
    entries = document.pop("accept", [])
    if document:
        raise ConfigError(f"policy {path} has {next(iter(document))!r}; expected nothing but [[accept]] entries")
    if not isinstance(entries, list):
        raise ConfigError(f"policy {path} has one accept; expected entries that each start with [[accept]]")
    return entries


def _acceptance(
    entry: Any,  # noqa: ANN401 - whatever TOML can hold
    earlier: Collection[str],
    latest: dt.date,
) -> Acceptance:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"it is {entry!r}; expected a table that starts with [[accept]]")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r}; expected {', '.join(_KEYS)}")
    rule = _rule(entry.get("rule"))
    if rule in _OF_ANYTHING and "difference" not in entry:
        raise ConfigError(f"rule {rule!r} alone accepts whatever does not work; name a difference as well")
    pattern = "" if rule and "difference" not in entry else _pattern(entry.get("difference"))
    acceptance = Acceptance(pattern, _reason(entry.get("reason")), _expires(entry.get("expires"), latest), rule)
    if acceptance.label in earlier:
        raise ConfigError(f"an earlier entry accepts {acceptance.label!r}, too; keep one of them")
    return acceptance


def _rule(value: object) -> str:
    if value is None:
        return ""
    known = [rule.id for rule in RULES if rule.id not in _NEVER]
    if value not in known:
        near = difflib.get_close_matches(str(value), known, 1)
        raise ConfigError(
            f"rule {value!r} is not one that can be accepted;"
            f" {f'did you mean {near[0]}?' if near else 'the reports name the rule of each difference'}"
        )
    return str(value)


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("no difference is named; expected difference = KEY, the key that a comparison shows")
    if value.partition("/")[0] not in AREAS:
        raise ConfigError(
            f"{value!r} names no area, and may accept differences of all; expected a key, or a pattern such as 'api/*':"
            f" it begins with one of {', '.join(AREAS)}"
        )
    return value


def _reason(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError("it has no reason; expected reason = TEXT, so that others can judge whether it still holds")
    return value


def _expires(value: object, latest: dt.date) -> dt.date:
    how = "write the last day on which it counts, without quotes: expires = 2027-03-31"
    if value is None:
        raise ConfigError(f"it has no end, and nothing is accepted for ever; {how}")
    if not isinstance(value, dt.date) or isinstance(value, dt.datetime):
        raise ConfigError(f"expires is {_quoted(value)}; {how}")
    if value > latest:
        raise ConfigError(
            f"expires is {value}, and nothing is accepted for more than {MOST_DAYS} days; expected {latest}"
            " or earlier, and to look at it again then"
        )
    return value


def _quoted(value: object) -> str:
    return f"the date and time {value}" if isinstance(value, dt.datetime) else f"{value!r}, which is no date"
