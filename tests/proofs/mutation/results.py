"""What is known about mutants, kept in a file of one line each, so that an interrupted run goes on where it stopped."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mnist_fp8.gate.releases.staging import STAGED


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        name: `proofs.mutation.path.Mutant.name`.
        file: file of Transformer Engine.
        line: line of the fault.
        scope: function or class around it; empty at the top of a module.
        operator: the operator that made it.
        before: the text that was replaced.
        after: what replaced it.
        evidence: the first observation of the probe that differs; empty if none does.
        claim: the claim that caught it; empty if none did.
        test: the first test that failed.
        message: what that test said.
        silent: whether nothing raised, so that only a value, dtype or structure was wrong.
        seconds: until the first failure.
    """

    name: str
    file: str
    line: int
    scope: str
    operator: str
    before: str
    after: str
    evidence: str
    claim: str = ""
    test: str = ""
    message: str = ""
    silent: bool = False
    seconds: float = 0.0

    @property
    def observable(self) -> bool:
        """Whether the fault changes something that can be seen from outside."""
        return bool(self.evidence)

    @property
    def caught(self) -> bool:
        """Whether a claim failed."""
        return bool(self.claim)


class Notes:
    """Facts by name, appended to a file as they come in."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self._facts: dict[str, Any] = dict(_whole(lines))

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def items(self) -> Iterable[tuple[str, Any]]:
        """All of them, in the order in which they came in."""
        return self._facts.items()

    def add(self, name: str, fact: Any) -> None:
        """Remember a fact, and write it down at once."""
        self._facts[name] = fact
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as out:
            out.write(json.dumps([name, fact]) + "\n")


def _whole(lines: list[str]) -> Iterable[tuple[str, Any]]:
    """The facts; a last line that was cut off when the run was interrupted is none."""
    for line in lines:
        try:
            name, fact = json.loads(line)
        except ValueError:
            continue
        yield name, fact


def of_the_claims(root: Path) -> str:
    """Changes with whatever decides what the claims say, under the project's folder: with all that is staged."""
    return _of_what_lies_in(root, [f"mnist_fp8/{name}" for name in STAGED])


def of_the_suite(root: Path) -> str:
    """Changes with the claims, and with all that makes a verdict of them, under the project's folder."""
    return _of_what_lies_in(root, ["mnist_fp8"])


def _of_what_lies_in(root: Path, names: Iterable[str]) -> str:
    places = [root / name for name in ("tests/claims", "tests/support", *names)]
    code = [file for place in places for file in (place, *place.rglob("*.py")) if file.is_file()]
    settings = [root / name for name in ("conftest.py", "pytest.ini", "tests/expectations.toml")]
    return digest([*code, *settings])


def digest(files: Iterable[Path], *more: str) -> str:
    """Stands for the contents of files, in eight hex digits: facts about others are not mixed with facts about them."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(file.name.encode() + file.read_bytes())
    for text in more:
        total.update(text.encode())
    return total.hexdigest()[:8]
