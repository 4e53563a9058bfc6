"""Editions, environments, runs and the stage. Offline: a program that writes down what it is asked stands in for uv."""

import base64
import concurrent.futures
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from mnist_fp8 import __version__
from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.files import cache_dir
from mnist_fp8.core.model import CONTENTS
from mnist_fp8.core.xla_flags import FLOAT32_SUMS
from mnist_fp8.gate.releases import catalogue, editions, environments, interpreters, processes, stacks, staging, uv
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import _MARKER, Environment
from mnist_fp8.gate.releases.interpreters import Facts
from support.subprocesses import ROOT, run_code, run_python

RELEASE = Edition(EditionKind.RELEASE, "2.19.0", "2.19.0")

# Makes what uv makes, as far as anybody looks: an interpreter that answers the probe, and a folder for packages.
FAKE_UV = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
with open({{log!r}}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "venv":
    home = Path(sys.argv[-2])
    (home / "bin").mkdir(parents=True)
    (home / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    python, facts = home / "bin" / "python", json.loads({{facts!r}})
    site = home / "lib" / "python3.11" / "site-packages"
    facts["package"] = facts["package"] or str(site / "transformer_engine")
    python.write_text("#!/bin/sh\\necho '" + json.dumps(facts) + "'\\n")
    python.chmod(0o755)
else:
    site = next(Path(sys.argv[sys.argv.index("--python") + 1]).parents[1].glob("lib/*/site-packages"))
    for name, text in {{files}}.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text.replace("edited", "published") if "--no-cache" in sys.argv else text)
if {{fails!r}} and {{fails!r}} in sys.argv:
    sys.exit({{message!r}})
"""


OTHER_FACTS = {"sites": [], "path": [], "places": [], "python": "3.11.9 (GCC)", "device": ""}


class FakeUv:
    """Stands in for uv, and knows what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program, self._log = folder / "uv", folder / "uv.log"
        self.behave()
        monkeypatch.setattr("uv.find_uv_bin", lambda: str(self._program))

    def behave(
        self,
        fails: str = "",
        message: str = "",
        package: str | None = None,
        files: Mapping[str, str] = MappingProxyType({}),
        **distributions: str,
    ) -> None:
        """Fail when asked with an argument, or make environments that have other packages or files."""
        packages = {"jax": "0.10.2", "flax": "0.12.8"} | distributions
        facts: dict[str, Any] = {
            "package": package,
            "distributions": packages,
            "base": "",
            "version": [3, 11],
            **OTHER_FACTS,
        }
        facts["requires"] = {name: [] for name in packages}
        self._program.write_text(
            FAKE_UV.format(log=str(self._log), facts=json.dumps(facts), fails=fails, message=message, files=dict(files))
        )
        self._program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of each call."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MNIST_FP8_TE", raising=False)
    staging.stage.cache_clear()
    yield
    staging.stage.cache_clear()


@pytest.fixture
def fake_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUv:
    return FakeUv(tmp_path, monkeypatch)


def te_folder(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """A folder that holds a ``transformer_engine``."""
    for name, text in {"__init__.py": "", "common/a.py": "a = 1", **(files or {})}.items():
        file = folder / "transformer_engine" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def here(**variables: str) -> Environment:
    """An environment of the running Python."""
    return Environment(RELEASE, Path(sys.executable), "", "", "", variables, Path("/te"))


# --- editions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"), [("2.19.0", "2.19.0"), ("2.19", "2.19.0"), ("te2.19.0", "2.19.0"), ("99.1", "99.1")]
)
def test_version_is_a_release(text: str, version: str) -> None:
    edition = editions.parse_edition(text)
    assert edition == Edition(EditionKind.RELEASE, version, version)
    assert edition.label == version


def test_wheel_says_its_version(tmp_path: Path) -> None:
    wheel = tmp_path / "transformer_engine-2.18.0-py3-none-any.whl"
    wheel.touch()
    edition = editions.parse_edition(str(wheel))
    assert edition == Edition(EditionKind.WHEEL, str(wheel), "2.18.0")
    assert edition.label == wheel.name


def test_folder_takes_the_version_beside_it(tmp_path: Path) -> None:
    (te_folder(tmp_path) / "transformer_engine-2.5.0+abc.dist-info").mkdir()
    edition = editions.parse_edition(str(tmp_path))
    assert (edition.kind, edition.version, edition.label) == (EditionKind.FOLDER, "2.5.0+abc", f"folder {tmp_path}")


def test_folder_with_the_metadata_of_two_versions_is_one_line(tmp_path: Path) -> None:
    """Python would take one of them, and the claims what is known of that release."""
    folder = te_folder(tmp_path / "mine")
    for version in ("2.19.0", "2.20.2"):
        metadata = folder / f"transformer_engine-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: transformer_engine\nVersion: {version}\n")
    with pytest.raises(ConfigError, match=r"mine has metadata of transformer-engine 2\.19\.0 and 2\.20\.2: leave one"):
        editions.parse_edition(str(folder))


def test_version_of_a_folder_is_what_python_reads(tmp_path: Path) -> None:
    folder = te_folder(tmp_path / "mine")
    for kind, file in (("dist-info", "METADATA"), ("egg-info", "PKG-INFO")):
        metadata = folder / f"transformer_engine-2.19.0.{kind}" / file
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: transformer-engine\nVersion: 2.20.2\n")
        assert editions.parse_edition(str(folder)).version == "2.20.2"
        shutil.rmtree(metadata.parent)


def test_folder_named_like_a_version_needs_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    te_folder(tmp_path / "2.19.0")
    monkeypatch.chdir(tmp_path)
    assert editions.parse_edition("2.19.0").kind is EditionKind.RELEASE
    assert editions.parse_edition("./2.19.0").kind is EditionKind.FOLDER


def test_folder_without_a_version_is_the_release_that_it_resembles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, new = {"jax/b.py": "b = 2"}, {"jax/c.py": "c"}
    known = {}
    for version, files in {"1.0": changed, "2.0": {"jax/b.py": "b = 3"}, "3.0": {"jax/b.py": "b = 3", **new}}.items():
        known[version] = catalogue.file_digests(te_folder(tmp_path / version, files) / "transformer_engine")
    monkeypatch.setattr(catalogue, "known_digests", lambda: known)
    for version in known:
        assert editions.parse_edition(str(tmp_path / version)).version == version
    mine = te_folder(tmp_path / "mine", changed | {"jax/mine.py": ""})
    assert editions.parse_edition(str(mine)).version == "1.0"


@pytest.mark.parametrize(
    "line",
    [
        "transformer-engine==2.3.0",
        "Transformer_Engine == 2.3.0  # accepted",
        "transformer-engine[jax]==2.3.0 ; python_version > '3'",
    ],
)
def test_requirements_file_names_the_release_that_it_pins(tmp_path: Path, line: str) -> None:
    (tmp_path / "te.txt").write_text(f"# the accepted release\n{line}\njax==0.10.2\n")
    assert editions.parse_edition(str(tmp_path / "te.txt")) == Edition(EditionKind.RELEASE, "2.3.0", "2.3.0")


@pytest.mark.parametrize("name", ["2.3.0", "newest"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_release_is_one_whatever_is_called_so_here(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(editions, "newest_release", lambda: "2.3.0")
    Path(name).touch() if kind == "file" else te_folder(Path(name))
    assert editions.parse_edition(name) == Edition(EditionKind.RELEASE, "2.3.0", "2.3.0")
    if kind == "folder":
        assert editions.parse_edition(f"./{name}").kind is EditionKind.FOLDER, "Control: a path"


def test_newest_is_what_the_package_index_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv, "run", lambda *_arguments, **_what: "transformer-engine==2.99.1\n")
    assert editions.parse_edition("newest") == Edition(EditionKind.RELEASE, "2.99.1", "2.99.1")


def test_common_jax_is_the_newest_that_works_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [("3", ">=2"), ("2", ">=1.5"), ("1", ">=1")]
    known = [{"te": te, "python": ">=3", "jax": jax, "flax": "f", "evidence": ""} for jax, te in entries]
    monkeypatch.setattr(stacks, "read_stacks", lambda: {"stack": known})
    assert stacks.common_jax("2.1", "2.2") == "3"
    assert stacks.common_jax("1.6", "2.2") == "2"
    assert stacks.common_jax("2.2", "1.2") == "1"
    assert stacks.common_jax("2.2", "0.9") is None


def test_flax_that_is_asked_for_has_an_environment_of_its_own() -> None:
    usual, other = stacks.stack_for("2.20.2"), stacks.stack_for("2.20.2", flax="0.12.6")
    assert (other.jax, other.flax) == (usual.jax, "0.12.6")
    release = editions.parse_edition("2.20.2")
    assert environments._name(release, other) == environments._name(release, usual).replace(
        usual.jax, f"{usual.jax}-flax-0.12.6"
    )
    with pytest.raises(ConfigError, match="Flax version is 'x'; expected one such as"):
        stacks.stack_for("2.20.2", flax="x")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("latest", "'latest' is no Transformer Engine: expected a version such as"),
        ("gone.txt", "requirements file"),
        ("none.txt", "pins transformer-engine 0 times; expected one line transformer-engine==VERSION"),
        ("bad.txt", "has transformer-engine>=2.3; expected one version: transformer-engine==VERSION"),
        ("two.txt", "pins transformer-engine 2 times"),
        ("no/such/folder", "is no Transformer Engine"),
        ("", "'' is no Transformer Engine"),
        ("te:new", "te:new has ':' in its name, which separates folders on Python's path: rename it"),
        ("gone-1.0-py3-none-any.whl", "does not exist"),
        ("bad.whl", "does not say its version"),
        ("other-1.0-py3-none-any.whl", "holds other; expected transformer-engine"),
        ("empty", "holds no transformer_engine"),
    ],
)
def test_what_is_no_subject_is_refused(text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    te_folder(tmp_path / "te:new")
    (tmp_path / "bad.txt").write_text("transformer-engine>=2.3\n# transformer-engine==2.3\n")
    (tmp_path / "none.txt").write_text("# transformer-engine==2.3\n")
    (tmp_path / "two.txt").write_text("transformer-engine==2.3.0\ntransformer_engine == 2.4.0\n")
    for name in ("bad.whl", "other-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError) as caught:
        editions.parse_edition(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- releases and stacks -------------------------------------------------------------------------------------------


def test_releases_are_in_order() -> None:
    versions = [Version(release) for release in catalogue.releases()]
    assert versions == sorted(versions)
    assert (catalogue.releases()[0], len(versions)) == ("1.10.0", len(set(versions)))


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("2.14", ["2.14.0", "2.14.1"]),
        ("2.14.0", ["2.14.0"]),
        ("2.6.0", ["2.6.0"]),
        ("2.13..2.15", ["2.13.0", "2.14.0", "2.14.1", "2.15.0"]),
        ("..1.11", ["1.10.0", "1.11.0"]),
        ("1.13..2.1, 1.10.0,1.10.0", ["1.10.0", "1.13.0", "2.1.0"]),
    ],
)
def test_expression_selects_releases(expression: str, selected: list[str]) -> None:
    assert list(catalogue.select_releases(expression)) == selected


def test_open_range_and_all_reach_the_newest() -> None:
    assert catalogue.select_releases("all") == catalogue.releases()
    assert catalogue.select_releases("2.1..") == catalogue.releases()[catalogue.releases().index("2.1.0") :]


@pytest.mark.parametrize("expression", ["", "..", "3.0", "2.8..2.3", "newest", "2.3,,2.4", "2.3...2.4", "all,x"])
def test_expression_that_means_no_release_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError, match=r"means no known release.*1\.10\.0, 1\.11\.0"):
        catalogue.select_releases(expression)


def test_every_release_has_a_stack_with_evidence() -> None:
    for release in catalogue.releases():
        stack = stacks.stack_for(release)
        assert Version(stack.jax) < Version("1")
        assert stack.flax
        assert stack.evidence


def test_first_stack_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(te: str, python: str, jax: str) -> dict[str, str]:
        return {"te": te, "python": python, "jax": jax, "flax": f"for {jax}", "evidence": ""}

    entries = [entry(">=2", ">=99", "0.9"), entry(">=2", ">=3", "0.8"), entry(">=2", ">=3", "0.7")]
    monkeypatch.setattr(stacks, "read_stacks", lambda: {"stack": entries})
    assert stacks.stack_for("2.1.0.dev0+abc").jax == "0.8"
    assert stacks.stack_for("2.1", jax="0.7").flax == "for 0.7"
    assert stacks.stack_for("2.1", jax="0.6").flax == "", "the newest that fits"
    with pytest.raises(ConfigError, match=r"no JAX is known to work with Transformer Engine 1\.9\.0 on Python"):
        stacks.stack_for("1.9.0")
    with pytest.raises(ConfigError, match="JAX version is 'new'; expected"):
        stacks.stack_for("2.1", jax="new")


# --- making an environment -----------------------------------------------------------------------------------------


def test_release_is_installed_without_what_it_asks_for(fake_uv: FakeUv) -> None:
    made = environments.prepare(RELEASE)
    venv, te, others = fake_uv.calls
    assert venv[0] == "venv"
    assert {"--no-deps", "--no-build", "transformer-engine==2.19.0"} <= set(te)
    assert "--no-deps" not in others
    assert f"jax=={stacks.stack_for('2.19.0').jax}" in others
    assert any(argument.startswith("pytest-reportlog") for argument in others)
    assert (made.jax, made.flax) == ("0.10.2", "0.12.8"), "what is installed, not what was asked for"
    assert made.variables == {"PYTHONPATH": str(staging.stage()), "MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}


def test_environment_is_made_once(fake_uv: FakeUv) -> None:
    first = environments.prepare(RELEASE)
    calls = len(fake_uv.calls)
    assert environments.prepare(RELEASE) == first
    assert len(fake_uv.calls) == calls
    assert environments.prepare(RELEASE, jax="0.9.2").python != first.python


def test_further_packages_have_an_environment_of_their_own(fake_uv: FakeUv) -> None:
    plain = environments.prepare(RELEASE)
    more = environments.prepare(RELEASE, packages=["einops==0.8.1"])
    assert more.python != plain.python
    assert "einops==0.8.1" in fake_uv.calls[-1]
    calls = len(fake_uv.calls)
    assert environments.prepare(RELEASE, packages=["einops==0.8.1"]) == more
    assert environments.prepare(RELEASE) == plain
    assert len(fake_uv.calls) == calls, "both are kept"
    assert environments.prepare(RELEASE, packages=["einops==0.8.0"]).python not in (plain.python, more.python)


def test_no_package_brings_another_transformer_engine(fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out: list[str] = []
    run = uv.run

    def note(*arguments: str, what: str) -> str:
        if "--excludes" in arguments:
            left_out.append(Path(arguments[arguments.index("--excludes") + 1]).read_text())
        return run(*arguments, what=what)

    monkeypatch.setattr(uv, "run", note)
    environments.prepare(RELEASE, packages=["needs-te"])
    assert left_out == ["transformer-engine"]
    assert "--excludes" in fake_uv.calls[-1]


def test_half_made_environment_is_thrown_away(fake_uv: FakeUv) -> None:
    home = environments.prepare(RELEASE).python.parents[1]
    (home / _MARKER).unlink()
    (home / "half").touch()
    environments.prepare(RELEASE)
    assert len(fake_uv.calls) == 6
    assert not (home / "half").exists()


JAX_FILE = "jax/__init__.py"


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda home: (home / name).write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        _write("lib/python3.11/site-packages/jax/__init__.py", "edited"),
        _write("lib/python3.11/site-packages/sitecustomize.py", "import os"),
        _write("lib/python3.11/site-packages/more.pth", "/elsewhere"),
        lambda home: (home / "lib/python3.11/site-packages/jax/__init__.py").unlink(),
        lambda home: shutil.rmtree(home / "lib/python3.11/site-packages"),
        lambda home: (home / "bin/python").unlink(),
        _write(_MARKER, "{}"),
        _write(_MARKER, "[]"),
        _write(_MARKER, '{"requirements": 1, "contents": null}'),
        _write(_MARKER, "\0\0"),
    ],
    ids=["edited", "sitecustomize", "pth", "file", "packages", "interpreter", "{}", "[]", "types", "zeros"],
)
def test_environment_that_is_not_what_was_made_is_made_anew(fake_uv: FakeUv, damage: Callable[[Path], object]) -> None:
    fake_uv.behave(files={JAX_FILE: "as published"})
    made = environments.prepare(RELEASE)
    home, calls = made.python.parents[1], len(fake_uv.calls)
    damage(home)
    assert environments.prepare(RELEASE) == made
    assert len(fake_uv.calls) == 2 * calls
    assert (environments._site(home) / JAX_FILE).read_text() == "as published"
    assert not (environments._site(home) / "more.pth").exists()


def record_of(content: str) -> str:
    """The ``RECORD`` of a package of one file with that content."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
    return f"a.py,sha256={digest},9\n../../../bin/python,,\na-1.dist-info/RECORD,,\n"


def test_package_that_was_edited_in_the_cache_of_uv_is_fetched_again(fake_uv: FakeUv) -> None:
    fake_uv.behave(files={"a.py": "edited", "a-1.dist-info/RECORD": record_of("published")})
    home = environments.prepare(RELEASE).python.parents[1]
    assert (environments._site(home) / "a.py").read_text() == "published"
    assert ["--no-cache" in call for call in fake_uv.calls if call[0] == "pip"] == [False, False, True, True]


def test_package_that_is_not_what_it_says_is_no_environment(fake_uv: FakeUv) -> None:
    fake_uv.behave(files={"a.py": "edited", "a-1.dist-info/RECORD": record_of("another")})
    with pytest.raises(EnvError, match=r"cannot be made: lib/python3\.11/site-packages/a\.py is not what its package"):
        environments.prepare(RELEASE)


def test_package_found_outside_of_an_environment_is_no_environment(fake_uv: FakeUv) -> None:
    fake_uv.behave(package="/elsewhere/transformer_engine")
    with pytest.raises(EnvError, match="transformer_engine is /elsewhere/transformer_engine, not in"):
        environments.prepare(RELEASE)


def test_made_environment_is_looked_at_without_the_callers_path(
    fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Mapping[str, str]] = []
    real = processes.execute

    def execute(*arguments: Any, **options: Any) -> Any:
        seen.append(options["environ"])
        return real(*arguments, **options)

    monkeypatch.setenv("PYTHONPATH", "/te")
    monkeypatch.setattr(interpreters, "execute", execute)
    environments.prepare(RELEASE)
    (environ,) = seen
    assert "PYTHONPATH" not in environ
    assert environ["PYTHONSAFEPATH"] == "1"
    assert fake_uv.calls


def test_environment_made_from_other_requirements_is_made_again(
    fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch
) -> None:
    environments.prepare(RELEASE)
    known = stacks.read_stacks()
    monkeypatch.setattr(stacks, "read_stacks", lambda: known | {"suite": ["pytest>=99"]})
    environments.prepare(RELEASE)
    assert "pytest>=99" in fake_uv.calls[-1]


def test_digest_follows_the_packages(fake_uv: FakeUv) -> None:
    first = environments.prepare(RELEASE)
    fake_uv.behave(numpy="2.1")
    (first.python.parents[1] / _MARKER).unlink()
    assert environments.prepare(RELEASE).digest != first.digest


def test_wheel_is_told_apart_by_its_content(fake_uv: FakeUv, tmp_path: Path) -> None:
    wheel = tmp_path / "transformer_engine-2.18.0-py3-none-any.whl"
    wheel.write_text("one")
    first = environments.prepare(editions.parse_edition(str(wheel)))
    assert str(wheel) in fake_uv.calls[1]
    wheel.write_text("two")
    assert environments.prepare(editions.parse_edition(str(wheel))).python != first.python


def test_folder_is_on_the_path_and_gets_metadata(fake_uv: FakeUv, tmp_path: Path) -> None:
    edition = Edition(EditionKind.FOLDER, str(te_folder(tmp_path / "mine")), "2.15.0")
    made = environments.prepare(edition)
    assert made.variables["PYTHONPATH"] == f"{staging.stage()}{os.pathsep}{edition.where}"
    assert not any("transformer-engine" in argument for call in fake_uv.calls for argument in call)
    (metadata,) = made.python.parents[1].rglob("transformer_engine-2.15.0.dist-info/METADATA")
    assert "Version: 2.15.0" in metadata.read_text()
    te_folder(tmp_path / "mine", {"jax/new.py": "1"})
    again = environments.prepare(edition)
    assert (again.python, again.digest != made.digest) == (made.python, True)


@pytest.mark.usefixtures("fake_uv")
def test_folder_that_is_edited_while_it_is_judged_has_no_result(tmp_path: Path) -> None:
    """A checkout of Transformer Engine that somebody works on: what ran is not what the result would be kept for."""
    made = environments.prepare(Edition(EditionKind.FOLDER, str(te_folder(tmp_path / "mine")), "2.15.0"))
    made.check_unedited()
    te_folder(tmp_path / "mine", {"jax/new.py": "1"})
    says = rf"was edited while it was judged.*leave {tmp_path / 'mine'} and the packages"
    with pytest.raises(EnvError, match=says):
        made.check_unedited()
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(EnvError, match=says):
        made.check_unedited()


@pytest.mark.usefixtures("fake_uv")
def test_environment_that_is_edited_while_it_is_used_has_no_result() -> None:
    made = environments.prepare(RELEASE)
    made.check_unedited()
    (made.package.parent / "beside.py").touch()
    with pytest.raises(EnvError, match="was edited while it was judged"):
        made.check_unedited()
    shutil.rmtree(made.marker.parent)
    with pytest.raises(EnvError, match="was edited while it was judged"):
        made.check_unedited()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            "error: No solution found\n  cause: Because there is no version of transformer-engine==2.19.0 and you",
            "the package index has no transformer-engine==2.19.0 (UV_DEFAULT_INDEX names another one",
        ),
        (
            (
                "error: Request failed after 3 retries\n  cause: Failed to fetch: https://x/te/\n"
                "  cause: error sending request for url (https://x/te/)\n"
            ),
            (
                "the package index https://x/te/ cannot be reached: connect to the network, and run the same again "
                "(UV_DEFAULT_INDEX names another one; pip's settings do not count)"
            ),
        ),
        ("cause: Failed to fetch: `http://user:word@x:9/te`\n error sending request", "index http://x:9/te cannot be"),
        ("error: network was disabled", "the package index cannot be reached: connect to the network, and run the"),
        ("error: Failed\n  cause: No space left on device (os error 28)", "the disk is full: free some space"),
        ("error: X\n  cause: Because a\n         and b.\n\nhint: c", "cannot be made: Because a and b."),
        ("error: strange", "cannot be made: error: strange"),
    ],
    ids=["no such version", "no network", "password", "offline", "full disk", "conflict", "other"],
)
def test_failure_of_uv_is_one_line_and_leaves_nothing(fake_uv: FakeUv, message: str, says: str) -> None:
    fake_uv.behave(fails="pip", message=message)
    with pytest.raises(EnvError) as caught:
        environments.prepare(RELEASE)
    assert str(caught.value).startswith("the environment of 2.19.0 cannot be made: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((cache_dir() / "environments").glob("te-*"))
    fake_uv.behave()
    assert environments.prepare(RELEASE).jax == "0.10.2", "the same, tried again"


def test_missing_uv_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(EnvError, match="made with uv, which is missing: pip install uv"):
        environments.prepare(RELEASE)


def test_full_disk_of_ours_is_one_line(fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    monkeypatch.setattr(environments, "_create", full)
    with pytest.raises(EnvError, match=r"the environment of 2\.19\.0 cannot be made or run: No space left on device"):
        environments.prepare(RELEASE)
    assert fake_uv.calls == []


def test_two_processes_do_not_make_the_same(fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch) -> None:
    home = environments.prepare(RELEASE).python.parents[1]
    monkeypatch.setattr(environments, "MAKING_TIMEOUT_S", 0)
    calls = len(fake_uv.calls)
    with filelock.FileLock(home.with_name(f".{home.name}.lock")), pytest.raises(EnvError, match="another process"):
        environments.prepare(RELEASE)
    assert len(fake_uv.calls) == calls


def test_kernels_cannot_be_had_in_an_environment_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_FP8_TE", "kernel")
    with pytest.raises(ConfigError, match="made with a JAX without CUDA"):
        environments.prepare(RELEASE)


# --- interpreters --------------------------------------------------------------------------------------------------

SUBJECT_ITSELF = dict.fromkeys(("transformer-engine", "jax", "jaxlib", "flax", "numpy", "ml-dtypes"), "99.0")


def interpreter(tmp_path: Path, **changes: object) -> Path:
    """A program that answers the probe as an interpreter with a ``transformer_engine`` would."""
    installed = {Requirement(text).name: _least(text) for text in stacks.read_stacks()["suite"]} | SUBJECT_ITSELF
    package = str(te_folder(tmp_path / "site") / "transformer_engine")
    facts = {"package": package, "distributions": installed, "requires": {}, "base": "/base"}
    facts |= OTHER_FACTS | {"sites": ["/its/site"]}
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(facts | {"version": [3, 12]} | changes))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat {answer}\n")
    python.chmod(0o755)
    return python


def _least(requirement: str) -> str:
    return next(one.version for one in Requirement(requirement).specifier if one.operator == ">=")


def test_interpreter_that_has_everything_is_used_as_it_is(
    tmp_path: Path, fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/its/own")
    python = interpreter(tmp_path)
    edition = editions.parse_edition(str(python))
    assert (edition.version, edition.label) == ("99.0", f"python {python}")
    made = environments.prepare(edition)
    assert (made.python, made.jax, made.flax) == (python, "99.0", "99.0")
    assert made.variables == {"PYTHONPATH": f"{staging.stage()}{os.pathsep}/its/own"}, "its kind of run is left to it"
    assert fake_uv.calls == []


@pytest.mark.usefixtures("fake_uv")
def test_interpreter_that_is_edited_while_it_is_judged_has_no_result(tmp_path: Path) -> None:
    made = environments.prepare(editions.parse_edition(str(interpreter(tmp_path, path=[str(tmp_path / "site")]))))
    made.check_unedited()
    te_folder(tmp_path / "site", {"jax/new.py": "1"})
    with pytest.raises(EnvError, match="was edited while it was judged"):
        made.check_unedited()


def test_package_that_is_imported_from_an_interpreter_is_part_of_its_identity(tmp_path: Path) -> None:
    """As one that is installed such that it can be edited lies outside of all folders of packages."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "__init__.py").touch()
    python = interpreter(tmp_path)
    edition = editions.interpreter_edition(python)
    places = {"places": [str(tmp_path / "ours" / "__init__.py")]}
    answer = json.loads((tmp_path / "answer.json").read_text())
    python.write_text(
        f'#!/bin/sh\ncase " $* " in *" ours "*) cat {tmp_path}/ours.json;; *) cat {tmp_path}/answer.json;; esac\n'
    )
    (tmp_path / "ours.json").write_text(json.dumps(answer | places))
    plain, first = environments.prepare(edition), environments.prepare(edition, imported=["ours"])
    assert environments.prepare(edition, imported=["ours"]) == first
    (tmp_path / "ours" / "layers.py").write_text("edited")
    assert environments.prepare(edition, imported=["ours"]).digest != first.digest
    assert environments.prepare(edition) == plain, "Control: nobody imports it"


def test_path_of_the_user_is_the_same_from_everywhere(
    tmp_path: Path, fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"te{os.pathsep}{os.pathsep}/its/own{os.pathsep}")
    made = environments.prepare(editions.interpreter_edition(interpreter(tmp_path)))
    assert made.variables["PYTHONPATH"].split(os.pathsep)[1:] == [str(tmp_path / "te"), "/its/own"]
    assert fake_uv.calls == []


def test_what_an_interpreter_lacks_is_put_beside_it(tmp_path: Path, fake_uv: FakeUv) -> None:
    have = json.loads((interpreter(tmp_path).parent / "answer.json").read_text())["distributions"]
    have = {name: version for name, version in have.items() if name != "hypothesis"} | {"pytest": "7.0"}
    edition = editions.interpreter_edition(interpreter(tmp_path, distributions=have))
    made = environments.prepare(edition)
    venv, install = fake_uv.calls
    assert venv[venv.index("--python") + 1] == "/base"
    wanted = [argument for argument in install if argument.startswith(("pytest", "hypothesis", "jax", "numpy", "flax"))]
    assert [Requirement(text).name for text in wanted] == ["pytest", "hypothesis"]
    assert "--excludes" in install
    assert made.python != Path(edition.where)
    (pth,) = made.python.parents[1].rglob("*.pth")
    assert pth.read_text() == "import site; site.addsitedir('/its/site')\n"
    environments.prepare(edition)
    assert len(fake_uv.calls) == 2


def test_package_too_old_for_a_new_one_is_found() -> None:
    installed = {"pytest": "9.0", "pluggy": "1.2", "jax": "0.4"}
    needs = ["pluggy>=1.5", "jax>=9", "colorama; sys_platform == 'win32'", "attrs; extra == 'dev'", "iniconfig"]
    facts = Facts(None, installed, {"pytest": needs}, "", ())
    assert environments._unmet(facts, ["pytest"]) == ["iniconfig", "pluggy>=1.5"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"package": None}, "has no transformer_engine: install it there"),
        ({"version": [3, 10]}, "is Python 3.10; the suite needs 3.11"),
        ({"version": None}, "does not answer as a Python 3 does"),
    ],
    ids=["no TE", "old Python", "no Python"],
)
def test_interpreter_that_cannot_be_judged_is_one_line(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(EnvError) as caught:
        editions.interpreter_edition(interpreter(tmp_path, **changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_interpreter_without_flax_is_one_line(tmp_path: Path) -> None:
    edition = editions.interpreter_edition(
        interpreter(tmp_path, distributions={"jax": "1", "jaxlib": "1", "numpy": "1"})
    )
    with pytest.raises(EnvError, match="has no flax and no ml-dtypes"):
        environments.prepare(edition)


def test_interpreter_has_its_own_jax(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is judged with the JAX and Flax that it has"):
        environments.prepare(editions.interpreter_edition(interpreter(tmp_path)), jax="0.9.2")
    with pytest.raises(ConfigError, match=r"asked for was 0\.12"):
        environments.prepare(editions.interpreter_edition(interpreter(tmp_path)), flax="0.12")


def test_interpreter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("gone", "file"):
        with pytest.raises(ConfigError, match="cannot be run: expected a Python executable"):
            editions.interpreter_edition(tmp_path / name)


def test_probe_is_answered_by_a_real_interpreter() -> None:
    facts = interpreters.probe(Path(sys.executable))
    assert facts.distributions["pytest"] == pytest.__version__
    assert any(text.startswith("pluggy") for text in facts.requires["pytest"])
    assert all(Path(folder).is_absolute() for folder in facts.sites)


def test_archive_on_the_path_is_one_of_the_places(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").touch()
    path = os.pathsep.join([str(tmp_path / "archive.zip"), str(tmp_path / "not there")])
    found = interpreters.probe(Path(sys.executable), pythonpath=path).path
    assert [place for place in found if place.startswith(str(tmp_path))] == [str(tmp_path / "archive.zip")]


def test_package_in_editable_mode_is_one_of_the_places(tmp_path: Path) -> None:
    """It lies in none of the folders of packages, and setuptools finds it by a table."""
    finder = (
        f"sys.modules['__editable___orbax_finder'] = m = type(sys)('m'); m.MAPPING = {{'orbax': {str(tmp_path)!r}}}"
    )
    (tmp_path / "sitecustomize.py").write_text(f"import sys; {finder}")
    assert str(tmp_path) not in interpreters.probe(Path(sys.executable)).places
    assert str(tmp_path) in interpreters.probe(Path(sys.executable), pythonpath=str(tmp_path)).places


def test_probe_leaves_nothing_in_the_stage() -> None:
    """A result of a run in an edited stage does not count."""
    home = staging.stage()
    assert interpreters.probe(Path(sys.executable), stage=home).device
    staging.check_unchanged(home)


# --- runs ----------------------------------------------------------------------------------------------------------


def test_run_returns_what_was_printed(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['X'], os.getcwd()); print('e', file=sys.stderr); sys.exit(3)"
    ended = here(X="1").run(["python", "-c", code], cwd=tmp_path, timeout=20)
    assert (ended.code, ended.out, ended.err, ended.timed_out) == (3, f"1 {tmp_path}\n", "e\n", False)
    assert 0 < ended.seconds < 20


def test_run_has_the_environments_programs_first_and_no_other_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/other")
    program = tmp_path / "bin" / "sh"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho $PATH; echo $PYTHONPATH$PYTHONHOME$VIRTUAL_ENV\n")
    program.chmod(0o755)
    environment = Environment(RELEASE, program.with_name("python"), "", "", "", {}, Path("/te"))
    path, others = environment.run(["sh"], cwd=tmp_path, timeout=20).out.split("\n")[:2]
    assert path.split(os.pathsep)[0] == str(program.parent)
    assert others == ""


def test_program_of_a_user_has_the_users_variables_and_a_prepared_transformer_engine(
    fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONOPTIMIZE", "PYTEST_ADDOPTS", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/other")
    monkeypatch.setenv("OF_THE_USER", "1")
    made = environments.prepare(RELEASE)
    found, stage = made.program_environ, str(staging.stage())
    assert found["PYTHONPATH"] == f"{stage}/mnist_fp8/te/program{os.pathsep}{stage}"
    assert (Path(stage) / "mnist_fp8" / "te" / "program" / "sitecustomize.py").is_file()
    assert (found["OF_THE_USER"], found["MNIST_FP8_TE"]) == ("1", "host")
    assert not {"PYTHONOPTIMIZE", "PYTEST_ADDOPTS", "VIRTUAL_ENV", "PYTHONSAFEPATH"} & set(found)
    assert made.environ["PYTHONPATH"] == stage, "what is judged does without"
    assert found["PYTHONPYCACHEPREFIX"] == made.environ["PYTHONPYCACHEPREFIX"], "nothing is written into the stage"
    assert fake_uv.calls


def test_program_of_a_user_in_an_interpreter_finds_what_it_has(
    tmp_path: Path, fake_uv: FakeUv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/its/own")
    made = environments.prepare(editions.interpreter_edition(interpreter(tmp_path)))
    assert made.program_environ["PYTHONPATH"] == f"{staging.stage()}{os.pathsep}/its/own"
    assert fake_uv.calls == []


def test_bytecode_lies_apart_and_apart_for_each_content(fake_uv: FakeUv) -> None:
    made = environments.prepare(RELEASE)
    folder = Path(made.environ["PYTHONPYCACHEPREFIX"])
    assert folder.parent == cache_dir() / "bytecode"
    assert dataclasses.replace(made, digest="other").environ["PYTHONPYCACHEPREFIX"] != str(folder)
    models = [dataclasses.replace(made, variables={**made.variables, CONTENTS: contents}) for contents in "ab"]
    assert len({each.environ["PYTHONPYCACHEPREFIX"] for each in (made, *models)}) == 3, "an edit may keep size and time"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    environments.prepare(RELEASE)
    assert not folder.exists(), "long unused"
    assert fake_uv.calls


def test_run_has_no_flags_that_were_set_for_the_xla_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XLA ends at a flag that it does not know, as that of an old JAX would."""
    monkeypatch.setenv("XLA_FLAGS", f"{FLOAT32_SUMS} --mine")
    assert here().run(["sh", "-c", "echo $XLA_FLAGS"], cwd=tmp_path, timeout=20).out == "--mine\n"


def test_file_with_flags_for_xla_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name would be part of a result's key, and not what it says."""
    monkeypatch.setenv("XLA_FLAGS", " --a --b")
    assert here().environ["XLA_FLAGS"] == "--a --b"
    monkeypatch.setenv("XLA_FLAGS", "/etc/flags")
    with pytest.raises(ConfigError, match=r"^XLA_FLAGS is '/etc/flags', .*put the flags themselves into it"):
        _ = here().environ


def test_output_goes_to_a_file_in_order(tmp_path: Path) -> None:
    ended = here().run(["sh", "-c", "echo 1; echo 2 >&2; echo 3"], cwd=tmp_path, timeout=20, output=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "1\n2\n3\n"
    assert (ended.out, ended.err) == ("", "")


def is_gone(pid: str) -> bool:
    """Whether a process has ended, or does so soon: a signal takes a moment to arrive."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{int(pid)}").exists() and _state(pid) != "Z":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_timeout_ends_children_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.2)
    stubborn = "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"
    ended = here().run(["sh", "-c", stubborn], cwd=tmp_path, timeout=2)
    assert ended.timed_out
    assert ended.code < 0
    assert is_gone(ended.out)


def test_child_that_outlives_the_command_is_ended(tmp_path: Path) -> None:
    ended = here().run(["sh", "-c", "sleep 60 & echo $!"], cwd=tmp_path, timeout=20)
    assert (ended.code, ended.timed_out) == (0, False)
    assert is_gone(ended.out)


def test_interrupt_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(process: subprocess.Popen[bytes], _deadline: float) -> bool:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here().run(["sleep", "60"], cwd=tmp_path, timeout=90)
    assert started[0].returncode is not None


def test_stop_reaches_runs_of_other_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_STOPPED", threading.Event())
    caught: list[BaseException] = []

    def run() -> None:
        try:
            here().run(["sleep", "60"], cwd=tmp_path, timeout=90)
        except KeyboardInterrupt as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    processes.stop_all()
    thread.join(20)
    assert len(caught) == 1
    run()
    assert len(caught) == 2, "and new runs"


def test_run_that_is_alone_waits_for_the_others_and_they_for_it(tmp_path: Path) -> None:
    def run() -> None:
        here().run(["sh", "-c", f"echo begun >> {note}; sleep 0.3; echo ended >> {note}"], cwd=tmp_path, timeout=20)

    note = tmp_path / "note"
    first, second = threading.Thread(target=run), threading.Thread(target=run)
    first.start()
    while not note.exists():
        time.sleep(0.01)
    with processes.alone():
        second.start()
        run()
        note.write_text(f"{note.read_text()}alone\n")
    first.join()
    second.join()
    assert note.read_text().split() == ["begun", "ended", "begun", "ended", "alone", "begun", "ended"]


# --- the stage -----------------------------------------------------------------------------------------------------


def test_stage_holds_package_and_suite() -> None:
    home = staging.stage()
    for name in ("conftest.py", "pytest.ini", "mnist_fp8/te/loading.py", "tests/claims/test_float8_in_jaxpr.py"):
        assert (home / name).is_file(), name
    for name in ("mnist_fp8/gate", "mnist_fp8/doctor", "mnist_fp8/benchmark", "mnist_fp8/cli", "tests/library"):
        assert not (home / name).exists(), f"a change of {name} would have all releases judged again"
    assert (home / "mnist_fp8" / "training" / "mnist_files").is_dir()
    without_packages = run_python("-S", "-c", "import mnist_fp8; print(mnist_fp8.__version__)", cwd=home)
    assert without_packages.strip() == __version__, "it is asked for where mnist_fp8 is not installed"


def test_stage_is_made_once_for_a_content(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"tests/a.py": b"1"}
    monkeypatch.setattr(staging, "_suite_files", lambda: files)
    first = staging.stage()
    made = first.stat().st_ino
    staging.stage.cache_clear()
    assert (staging.stage(), first.stat().st_ino) == (first, made)
    files["tests/a.py"] = b"2"
    staging.stage.cache_clear()
    assert staging.stage() != first
    assert [path.name for path in first.parent.iterdir() if path.name.startswith(".")] == []


def test_notes_in_a_stage_are_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run leaves some, while others run: none of them may lose its suite, nor its result when ours is edited."""
    files = {"tests/a.py": b"1"}
    monkeypatch.setattr(staging, "_suite_files", lambda: dict(files))
    home = staging.stage()
    made = home.stat().st_ino
    (home / ".hypothesis" / "constants").mkdir(parents=True)
    (home / ".hypothesis" / "constants" / "0a").touch()
    files["tests/a.py"] = b"2"
    staging.check_unchanged(home)
    files["tests/a.py"] = b"1"
    staging.stage.cache_clear()
    assert (staging.stage(), home.stat().st_ino) == (home, made)


def test_stage_is_made_once_for_all_that_ask_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(8)

    def files() -> dict[str, bytes]:
        together.wait()
        return {f"tests/{number}.py": b"1" for number in range(50)}

    monkeypatch.setattr(staging, "_suite_files", files)

    def made() -> int:
        return int(staging.stage.__wrapped__().stat().st_ino)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len({future.result() for future in [pool.submit(made) for _ in range(8)]}) == 1


EDITED = pytest.mark.parametrize(
    "edit",
    [
        lambda home: (home / "tests/claims/test_a.py").write_text("def test_a(): pass"),
        lambda home: (home / "tests/claims/test_a.py").unlink(),
        lambda home: (home / "tests/claims/conftest.py").write_text("collect_ignore_glob = ['*']"),
        lambda home: (home / "tests/claims/__pycache__").mkdir() or (home / "tests/claims/__pycache__/a.pyc").touch(),
        lambda home: shutil.rmtree(home / "tests"),
    ],
    ids=["edited", "removed", "added", "bytecode", "folder"],
)


@EDITED
def test_stage_that_was_edited_is_made_anew(monkeypatch: pytest.MonkeyPatch, edit: Callable[[Path], object]) -> None:
    files = {"tests/claims/test_a.py": b"def test_a(): assert 0", "pytest.ini": b"[pytest]"}
    monkeypatch.setattr(staging, "_suite_files", lambda: files)
    home = staging.stage()
    edit(home)
    staging.stage.cache_clear()
    assert staging.stage() == home
    assert {str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()} == files
    assert list(home.parent.iterdir()) == [home]


@EDITED
def test_stage_that_a_run_edits_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, edit: Callable[[Path], object]
) -> None:
    """What runs there next would be judged by something else."""
    monkeypatch.setattr(staging, "_suite_files", lambda: {"tests/claims/test_a.py": b"def test_a(): assert 0"})
    home = staging.stage()
    (home / "checkpoint").mkdir()
    (home / "checkpoint" / "arrays.npz").touch()
    staging.check_unchanged(home)
    edit(home)
    with pytest.raises(
        EnvError, match=r"has changed the suite that judges it, such as tests/claims/.*no result counts"
    ):
        staging.check_unchanged(home)
    staging.check_unchanged(home.parent)  # control: that is no stage


def test_cache_folder_that_python_would_split_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a:b"))
    with pytest.raises(EnvError, match="has ':' in its name: set XDG_CACHE_HOME to another"):
        staging.stage()


def test_stage_that_is_long_unused_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    old = staging.stage()
    os.utime(old, (0, 0))
    monkeypatch.setattr(staging, "_suite_files", lambda: {"other": b""})
    staging.stage.cache_clear()
    staging.stage()
    assert not old.exists()


def test_installed_package_carries_its_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mnist_fp8"
    compiled = ("__pycache__/envs.pyc", "suite/tests/claims/__pycache__/test_a.pyc")
    settings = ("suite/conftest.py", "suite/pytest.ini", "suite/tests/expectations.toml")
    for name in ("gate/envs.py", "te/loading.py", *settings, "suite/tests/claims/test_a.py", *compiled):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.setattr(staging, "PACKAGE_FOLDER", package)
    expected = {*(name.removeprefix("suite/") for name in settings), "tests/claims/test_a.py"}
    expected |= {"mnist_fp8/te/loading.py"}
    assert set(staging._suite_files()) == expected


def test_missing_suite_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PACKAGE_FOLDER", tmp_path / "mnist_fp8")
    with pytest.raises(EnvError, match=r"the tests are missing in .*: install mnist-fp8 again"):
        staging.stage()


def test_importing_is_cheap() -> None:
    heavy = ("jax", "numpy", "uv", "rich", "transformer_engine")
    code = (
        f"import sys, mnist_fp8.gate.releases.environments\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    assert run_code(code).strip() == "[]"


def test_tox_names_every_known_release() -> None:
    named = re.search(r"^\[testenv:te\{(.*)\}\]$", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert named, "there are no such environments"
    assert tuple(named[1].split(",")) == catalogue.releases()
