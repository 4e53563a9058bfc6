"""The search for a JAX."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases import editions, environments, find_jax, staging, uv
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.find_jax import Attempt
from mnist_fp8.gate.releases.processes import Ended

SUBJECT = Edition(EditionKind.RELEASE, "2.19.0", "2.19.0")
Uv = Callable[..., str]


def resolving(published: Sequence[str]) -> Uv:
    """A uv that knows some releases of JAX, from the newest."""

    def uv(*arguments: str, what: str) -> str:
        assert what
        requirement = Requirement(Path(arguments[-1]).read_text())
        found = next((version for version in published if requirement.specifier.contains(version)), "")
        return f"jax=={found}\n" if found else ""

    return uv


def test_candidates_are_the_last_patches_and_each_of_0_4(monkeypatch: pytest.MonkeyPatch) -> None:
    published = ["0.10.2", "0.10.0", "0.9.1", "0.5.3", "0.5.0", "0.4.38", "0.4.36", "0.4.31", "0.4.30", "0.3.9"]
    monkeypatch.setattr(uv, "run", resolving(published))
    assert list(find_jax.candidates()) == ["0.10.2", "0.9.1", "0.5.3", "0.4.38", "0.4.36", "0.4.31"]


def test_search_ends_at_the_first_that_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {"0.10.2": "ImportError: no ffi", "0.9.1": "", "0.8.3": ""}
    monkeypatch.setattr(find_jax, "candidates", lambda: iter(errors))
    monkeypatch.setattr(find_jax, "try_jax", lambda _subject, jax: Attempt(jax, "0.12", errors[jax]))
    assert find_jax.main("2.19.0") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][2:] == [
        ["0.10.2", "0.12", "ImportError:", "no", "ffi"],
        ["0.9.1", "0.12", "works"],
    ]


def test_search_without_a_find_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find_jax, "candidates", lambda: iter(["0.10.2"]))
    monkeypatch.setattr(find_jax, "try_jax", lambda _subject, jax: Attempt(jax, "0.12", "broken"))
    assert find_jax.main("2.19.0") == 1


def test_interpreter_has_its_own_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editions, "parse_edition", lambda text: Edition(EditionKind.INTERPRETER, text, "2.19.0"))
    with pytest.raises(ConfigError, match="python /x has its own JAX"):
        find_jax.main("/x")


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (Ended(0, "", "a warning\n", 1, timed_out=False), ""),
        (Ended(-15, "", "", 300, timed_out=True), "did not end within 300 s"),
        (Ended(-11, "", "", 1, timed_out=False), "ended with exit code -11"),
        (Ended(1, "", "Traceback\n  x\na.b.SomeError: first\nmore of it\n", 1, timed_out=False), "SomeError: first"),
        (Ended(1, "", "ImportError: a\n\nDuring\n\nKeyError: b\n", 1, timed_out=False), "KeyError: b"),
    ],
    ids=["works", "hangs", "crashes", "of several lines", "during another"],
)
def test_attempt_says_what_failed(ended: Ended, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Canned(Environment):
        def run(self, *_arguments: object, **_options: object) -> Ended:
            return ended

    monkeypatch.setattr(
        environments, "prepare", lambda edition, jax: Canned(edition, Path(), jax, "0.12", "", {}, Path())
    )
    monkeypatch.setattr(staging, "stage", Path)
    assert find_jax.try_jax(SUBJECT, "0.9.1") == Attempt("0.9.1", "0.12", error)


def test_environment_that_cannot_be_made_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_edition: Edition, jax: str) -> None:
        raise EnvError(f"no {jax}")

    monkeypatch.setattr(environments, "prepare", fail)
    assert find_jax.try_jax(SUBJECT, "0.9.1") == Attempt("0.9.1", "-", "no 0.9.1")


def test_release_that_there_is_not_is_no_fault_of_each_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*arguments: str, what: str) -> str:
        raise EnvError(f"{what}: no {Path(arguments[-1]).read_text()}")

    monkeypatch.setattr(uv, "run", ask)
    monkeypatch.setattr(find_jax, "candidates", lambda: pytest.fail("it went on"))
    with pytest.raises(EnvError, match=r"no transformer-engine==9\.9\.9"):
        find_jax.main("9.9.9")
