"""The Transformer Engine to be judged, and an environment of its own to judge it in.

Two releases of Transformer Engine never share a process, and old ones need an old JAX. So each gets an environment,
made once with uv and kept in the cache. The suite is not installed there: a *stage*, a folder with copies of the
package and its tests, is on the path of every run.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import filelock
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from mnist_fp8 import __version__, xla_flags
from mnist_fp8.config import ConfigError, RunKind, cache_dir, requested_run_kind

STACKS_FILE = Path(__file__).with_name("stacks.toml")
RELEASES_FILE = Path(__file__).with_name("releases.json")

_TE = "transformer-engine"
_PACKAGE = "transformer_engine"
_LEAST_PYTHON = (3, 11)
_AS_FOUND = ("jax", "jaxlib", "flax", "numpy", "ml-dtypes")
"""What an interpreter has to have itself: another version beside its own would be another subject."""
_OF_ANOTHER_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_PYTHON_TAG = f"py{sys.version_info.major}.{sys.version_info.minor}"
_MARKER = "complete.json"
_MAKING_TIMEOUT_S = 1800
_PROBE_TIMEOUT_S = 60
_POLL_S = 0.5
_GRACE_S = 5
_STAGE_KEPT_S = 14 * 86400


class EnvError(RuntimeError):
    """An environment cannot be made; the message is one line: what failed, and what to do."""


# --- what is judged ------------------------------------------------------------------------------------------------


class SubjectKind(enum.Enum):
    """Where a Transformer Engine comes from."""

    RELEASE = "release"
    WHEEL = "wheel"
    FOLDER = "folder"
    INTERPRETER = "interpreter"


@dataclass(frozen=True)
class Subject:
    """A Transformer Engine to be judged.

    Attributes:
        kind: where it comes from.
        where: the release's version, or an absolute path.
        version: of Transformer Engine; a folder's is that of the release that it resembles most, if it names none.
    """

    kind: SubjectKind
    where: str
    version: str

    @property
    def label(self) -> str:
        """How reports name it, such as ``2.19.0`` or ``folder /x``."""
        match self.kind:
            case SubjectKind.RELEASE:
                return self.version
            case SubjectKind.WHEEL:
                return Path(self.where).name
            case SubjectKind.FOLDER:
                return f"folder {self.where}"
            case SubjectKind.INTERPRETER:
                return f"python {self.where}"


def parse_subject(text: str) -> Subject:
    """The subject that a person names: a version, a wheel, a folder that holds ``transformer_engine``, an interpreter.

    Raises:
        ConfigError: it is none of these.
        EnvError: it is an interpreter that cannot be judged; see `interpreter_subject`.
    """
    path = Path(text).absolute()
    if text.endswith(".whl"):
        return _wheel_subject(path)
    if text and path.is_dir() and (Path(text).name != text or not _is_version(text)):
        return _folder_subject(path)
    if text.endswith(".txt"):
        text = _pinned(Path(text))
    elif path.is_file():
        return interpreter_subject(path)
    if text == "newest":
        text = newest_release()
    if not _is_version(text.removeprefix("te")):  # as tox names its environments
        raise ConfigError(
            f"{text!r} is no Transformer Engine: expected a version such as {releases()[-1]}, the word newest, or an"
            " existing wheel, folder that holds transformer_engine, requirements file (.txt), or Python interpreter"
        )
    named = Version(text.removeprefix("te"))
    version = next((known for known in releases() if Version(known) == named), str(named))
    return Subject(SubjectKind.RELEASE, version, version)


def _pinned(path: Path) -> str:
    """The version that a requirements file pins."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"requirements file {path} cannot be read: {error.strerror}") from error
    pin = re.compile(r"transformer[-_.]engine(?:\[[^]]*\])?\s*==\s*([\w.]+)\s*(?:[;#].*)?", re.IGNORECASE)
    found = [match[1] for line in lines if (match := pin.fullmatch(line.strip()))]
    if len(found) != 1:
        raise ConfigError(f"requirements file {path} pins {_TE} {len(found)} times; expected one line {_TE}==VERSION")
    return found[0]


def newest_release() -> str:
    """The newest release on the package index.

    Raises:
        EnvError: the index cannot be asked.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.in"
        file.write_text(_TE)
        options = ("--no-deps", "--no-header", "--no-annotate", "--no-build", "--python", sys.executable)
        printed = uv("pip", "compile", *options, str(file), what=f"the list of releases of {_TE}")
    return printed.strip().partition("==")[2]


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _wheel_subject(path: Path) -> Subject:
    if not path.is_file():
        raise ConfigError(f"wheel {path} does not exist")
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise ConfigError(f"wheel {path} does not say its version: {error}") from error
    if name != _TE:
        raise ConfigError(f"wheel {path} holds {name}; expected {_TE}")
    return Subject(SubjectKind.WHEEL, str(path), str(version))


def _folder_subject(path: Path) -> Subject:
    package = path / _PACKAGE
    if not (package / "__init__.py").is_file():
        raise ConfigError(f"folder {path} holds no {_PACKAGE}/__init__.py")
    beside = next(iter(sorted(path.glob(f"{_PACKAGE}-*.dist-info"))), None)
    version = beside.name.removesuffix(".dist-info").partition("-")[2] if beside else most_similar_release(package)
    return Subject(SubjectKind.FOLDER, str(path), version)


def interpreter_subject(python: Path) -> Subject:
    """The Transformer Engine that a Python interpreter has.

    Raises:
        ConfigError: there is no such interpreter.
        EnvError: it does not answer, is too old for the suite, or has no Transformer Engine.
    """
    python = python.absolute()  # links stay: a virtual environment's interpreter is one
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise ConfigError(f"interpreter {python} cannot be run: expected a Python executable")
    facts = _probe(python)
    if facts.package is None:
        raise EnvError(f"python {python} has no {_PACKAGE}: install it there, or name a release to verify")
    version = facts.distributions.get(_TE) or most_similar_release(facts.package)
    return Subject(SubjectKind.INTERPRETER, str(python), version)


# --- known releases ------------------------------------------------------------------------------------------------


@functools.cache
def _known() -> dict[str, dict[str, str]]:
    """Digests of the Python files of each release, from the oldest; ``python -m mnist_fp8.search`` writes the file."""
    found: dict[str, dict[str, str]] = json.loads(RELEASES_FILE.read_text())
    return dict(sorted(found.items(), key=lambda item: Version(item[0])))


def releases() -> tuple[str, ...]:
    """All known releases, the oldest first."""
    return tuple(_known())


def select_releases(expression: str) -> tuple[str, ...]:
    """Known releases that an expression means, the oldest first.

    Args:
        expression: ``all``, a version (``2.14`` is every 2.14.x), a range with both ends (``2.3..2.8``, ``2.10..``,
            ``..2.3``), or several of these with commas between.

    Raises:
        ConfigError: a part of it means none.
    """
    chosen = {release for part in expression.split(",") for release in _select(part.strip())}
    return tuple(release for release in releases() if release in chosen)


def _select(part: str) -> list[str]:
    first, dots, last = part.partition("..")
    ends = [end for end in (first, last) if end]
    if part == "all":
        return list(releases())
    if part in releases():
        return [part]
    if ends and all(map(_is_version, ends)):
        found = [release for release in releases() if _between(release, first, last if dots else first)]
        if found:
            return found
    raise ConfigError(
        f"{part!r} means no known release; expected all, a version, or a range such as 2.3..2.8;"
        f" known are {', '.join(releases())}"
    )


def _between(release: str, first: str, last: str) -> bool:
    """Whether a release lies in a range; an end without a patch, such as ``2.14``, takes in all of its patches."""

    def compared(end: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        length = len(Version(end).release)
        return Version(release).release[:length], Version(end).release

    at_least = not first or compared(first)[0] >= compared(first)[1]
    return at_least and (not last or compared(last)[0] <= compared(last)[1])


def most_similar_release(package: Path) -> str:
    """The known release that shares most files with a ``transformer_engine`` folder; the newest of equals."""
    found = file_digests(package)

    def shared(release: str) -> float:
        files = _known()[release]
        return sum(found.get(name) == digest for name, digest in files.items()) / len(files.keys() | found.keys())

    return max(reversed(releases()), key=shared)


def file_digests(package: Path) -> dict[str, str]:
    """Digest of each Python file that the suite can see of a ``transformer_engine`` folder, by its name in it."""
    files = [package / "__init__.py", *(file for part in ("common", "jax") for file in (package / part).rglob("*.py"))]
    return {
        str(file.relative_to(package)): hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in sorted(files)
    }


# --- which JAX -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """Versions that a Transformer Engine is judged with.

    Attributes:
        jax: version of JAX.
        flax: version of Flax; empty is the newest that fits this JAX.
        evidence: why not a newer one.
    """

    jax: str
    flax: str
    evidence: str


@functools.cache
def _stacks() -> dict[str, Any]:
    return tomllib.loads(STACKS_FILE.read_text())


def stack_for(te_version: str, jax: str | None = None, flax: str | None = None) -> Stack:
    """The newest JAX that works with a Transformer Engine and the running Python.

    Args:
        te_version: of Transformer Engine.
        jax: version that a person wants instead.
        flax: version of Flax that a person wants instead of the one that goes with it.

    Raises:
        ConfigError: none is known to work, or what a person wants is no version.
    """
    for name, wanted, example in (("JAX", jax, "0.10.2"), ("Flax", flax, "0.12.8")):
        if wanted is not None and not _is_version(wanted):
            raise ConfigError(f"{name} version is {wanted!r}; expected one such as {example}")
    found = _newest_stack(te_version, _stacks_for(te_version), jax)
    return dataclasses.replace(found, flax=flax) if flax else found


def common_jax(one: str, other: str) -> str | None:
    """The newest JAX that is known to work with both of two versions of Transformer Engine: only they differ then."""
    with_other = {stack.jax for stack in _stacks_for(other)}
    return next((stack.jax for stack in _stacks_for(one) if stack.jax in with_other), None)


def _stacks_for(te_version: str) -> list[Stack]:
    return [
        Stack(entry["jax"], entry["flax"], entry["evidence"])
        for entry in _stacks()["stack"]
        if _in(te_version, entry["te"]) and _in(platform.python_version(), entry["python"])
    ]


def _newest_stack(te_version: str, stacks: Sequence[Stack], jax: str | None) -> Stack:
    if jax is not None:
        return next((stack for stack in stacks if stack.jax == jax), Stack(jax, "", "asked for"))
    if not stacks:
        raise ConfigError(
            f"no JAX is known to work with Transformer Engine {te_version} on Python {platform.python_version()};"
            f" known are {releases()[0]} to {releases()[-1]}; name a JAX version to try one"
        )
    return stacks[0]


def _in(version: str, specifier: str) -> bool:
    return SpecifierSet(specifier).contains(version, prereleases=True)


# --- runs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: exit code; negative is the signal that ended it.
        out: what it printed on standard output; empty if that went to a file.
        err: the same of standard error.
        seconds: how long it took.
        timed_out: it was ended because its time was over.
    """

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool


_STOPPED = threading.Event()


def stop_all() -> None:
    """End the runs of all threads, now and from now on: in each of them `KeyboardInterrupt` is raised.

    Ctrl-C interrupts the main thread only; whoever runs environments in others calls this then.
    """
    _STOPPED.set()


def _execute(
    command: Sequence[str], *, cwd: Path, timeout: float, environ: Mapping[str, str], output: Path | None = None
) -> Ended:
    """Run a command in a process group of its own, of which nothing is left afterwards, however it ends."""
    with contextlib.ExitStack() as files:
        out: IO[bytes] = files.enter_context(output.open("wb")) if output else _temporary(files)
        err = out if output else _temporary(files)
        begin = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - a command of ours, or one that the user gave to be run
            command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            ended_itself = _wait(process, begin + timeout)
        finally:
            _end(process)
        if _STOPPED.is_set():
            raise KeyboardInterrupt
        texts = ("", "") if output else (_text(out), _text(err))
        return Ended(process.returncode, *texts, time.monotonic() - begin, timed_out=not ended_itself)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end; whether it came before the deadline, and before `stop_all`."""
    while time.monotonic() < deadline and not _STOPPED.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(_POLL_S, max(deadline - time.monotonic(), 0)))
            return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process group: politely if its first process still runs, then for certain."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _inherited() -> dict[str, str]:
    """Our own environment variables, without what is meant for the Python and the JAX that run here."""
    inherited = xla_flags.without_ours(os.environ)
    return {name: value for name, value in inherited.items() if name not in _OF_ANOTHER_PYTHON}


def _temporary(files: contextlib.ExitStack) -> IO[bytes]:
    """A file and not a pipe, which a grandchild that goes on could keep open."""
    return files.enter_context(tempfile.TemporaryFile())


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@dataclass(frozen=True)
class Environment:
    """A Python in which a Transformer Engine is judged.

    Attributes:
        subject: what is judged.
        python: the interpreter.
        jax: version of JAX there.
        flax: version of Flax there.
        digest: of Transformer Engine's own Python and the versions of all packages.
        variables: environment variables that a run needs; ``PYTHONPATH`` has the stage.
        package: folder of ``transformer_engine``.
    """

    subject: Subject
    python: Path
    jax: str
    flax: str
    digest: str
    variables: Mapping[str, str]
    package: Path

    def run(self, command: Sequence[str], *, cwd: Path, timeout: float, output: Path | None = None) -> Ended:
        """Run a command with this environment's programs first on ``PATH``.

        Args:
            command: program and arguments.
            cwd: working directory.
            timeout: seconds after which it is ended.
            output: file for everything printed; ``None`` returns it.

        Raises:
            OSError: there is no such program.
            KeyboardInterrupt: interrupted, or `stop_all` was called; the command and its children are gone.
        """
        return _execute(self.command(command), cwd=cwd, timeout=timeout, environ=self.environ, output=output)

    def command(self, words: Sequence[str]) -> list[str]:
        """A command with its program found here: a new process would look it up on our own ``PATH``."""
        return [shutil.which(words[0], path=self.environ["PATH"]) or words[0], *words[1:]]

    @property
    def environ(self) -> dict[str, str]:
        """All environment variables of a run: ours, and what this environment needs."""
        inherited = _inherited()
        path = os.pathsep.join([str(self.python.parent), inherited.get("PATH", os.defpath)])
        return inherited | {"PATH": path, **self.variables}


# --- environments --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Facts:
    """What an interpreter says of itself.

    Attributes:
        package: folder of ``transformer_engine``.
        distributions: version of each installed package, by its normalized name.
        requires: what each of them needs.
        base: the interpreter that virtual environments are made from.
        sites: its folders of installed packages.
    """

    package: Path | None
    distributions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]]
    base: str
    sites: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of Transformer Engine's Python and the versions of all packages."""
        return _digest_of({"te": file_digests(self.package) if self.package else {}, "packages": self.distributions})


_PROBE = """
import importlib.util, json, site, sys
from importlib import metadata
spec = importlib.util.find_spec("transformer_engine")
found, requires = {}, {}
for one in metadata.distributions():
    name = one.metadata["Name"] or ""
    found.setdefault(name, one.version)
    requires.setdefault(name, one.requires or [])
print(json.dumps({
    "package": list(spec.submodule_search_locations or [None])[0] if spec else None,
    "distributions": found,
    "requires": requires,
    "base": getattr(sys, "_base_executable", sys.executable),
    "sites": site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    "version": list(sys.version_info[:2]),
}))
"""


def _probe(python: Path) -> _Facts:
    """Ask an interpreter, without importing Transformer Engine or JAX."""
    with _explained(f"python {python}"), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe.py").write_text(_PROBE)
        command = [str(python), "probe.py"]
        ended = _execute(command, cwd=Path(folder), timeout=_PROBE_TIMEOUT_S, environ=os.environ)
    try:
        found = json.loads(ended.out)
        version = tuple(found["version"])
    except (ValueError, LookupError, TypeError):
        words = ended.err.strip().splitlines() or [f"exit code {ended.code}"]
        raise EnvError(f"python {python} does not answer as a Python 3 does: {words[-1]}") from None
    if version < _LEAST_PYTHON:
        raise EnvError(f"python {python} is Python {version[0]}.{version[1]}; the suite needs 3.11 or newer")
    distributions, requires = (
        {str(canonicalize_name(name)): value for name, value in found[what].items()}
        for what in ("distributions", "requires")
    )
    package = Path(found["package"]) if found["package"] else None
    return _Facts(package, distributions, requires, found["base"], tuple(found["sites"]))


def prepare(subject: Subject, *, jax: str | None = None, flax: str | None = None) -> Environment:
    """Make the environment in which a subject is judged, or find it in the cache.

    Args:
        subject: what is to be judged.
        jax: version of JAX instead of the newest that works.
        flax: version of Flax instead of the one that goes with it.

    Raises:
        ConfigError: what is asked for contradicts itself, or no JAX is known to work.
        EnvError: it cannot be made; the same can be tried again.
    """
    if subject.kind is SubjectKind.INTERPRETER:
        if jax is not None or flax is not None:
            raise ConfigError(
                f"{subject.label} is judged with the JAX and Flax that it has; asked for was {jax or flax}"
            )
        return _adopt(subject)
    if requested_run_kind() is RunKind.KERNEL:
        raise ConfigError(
            f"MNIST_FP8_TE=kernel, but the environment of {subject.label} is made with a JAX without CUDA: name an"
            " interpreter that has Transformer Engine's CUDA extension, or unset the variable"
        )
    stack = stack_for(subject.version, jax, flax)
    with _locked(_name(subject, stack), f"the environment of {subject.label}") as home:
        requirements = _requirements(stack)
        made = _read_marker(home, requirements) or _build(home, subject, requirements)
    on_path, digest, package = [str(stage())], made["digest"], _site(home) / _PACKAGE
    if subject.kind is SubjectKind.FOLDER:
        on_path.append(subject.where)
        package = Path(subject.where) / _PACKAGE
        digest = _digest_of([digest, file_digests(package)])
    variables = {"PYTHONPATH": os.pathsep.join(on_path), "MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}
    return Environment(subject, home / "bin" / "python", made["jax"], made["flax"], digest, variables, package)


def _adopt(subject: Subject) -> Environment:
    """An interpreter as it is; where packages of the suite are missing, they are put beside it, not into it."""
    python = Path(subject.where)
    facts = _probe(python)
    absent = [name for name in _AS_FOUND if name not in facts.distributions]
    if absent:
        raise EnvError(f"{subject.label} has no {' and no '.join(absent)}: install what Transformer Engine needs there")
    if facts.package is None:
        raise EnvError(f"{subject.label} has no {_PACKAGE} any more: install it there again")
    package = facts.package
    missing = [requirement for requirement in _stacks()["suite"] if not _is_met(requirement, facts.distributions)]
    if missing:
        python = _overlay(subject, facts, missing)
        facts = _probe(python)
    on_path = [str(stage()), os.environ.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, on_path))}
    installed = facts.distributions
    return Environment(subject, python, installed["jax"], installed["flax"], facts.digest, variables, package)


def _is_met(requirement: str, installed: Mapping[str, str]) -> bool:
    """Whether an interpreter has a package in a version that the suite can use, or has to be taken as it is."""
    parsed = Requirement(requirement)
    name = canonicalize_name(parsed.name)
    return name in _AS_FOUND or (name in installed and _in(installed[name], str(parsed.specifier)))


def _name(subject: Subject, stack: Stack) -> str:
    """Folder of an environment. All folders of one version share one: they are on its path, not in it."""
    te = subject.version
    if subject.kind is SubjectKind.WHEEL:
        te += "-wheel-" + hashlib.sha256(Path(subject.where).read_bytes()).hexdigest()[:12]
    elif subject.kind is SubjectKind.FOLDER:
        te += "-folder"
    known = any(stack.flax == each.flax for each in _stacks_for(subject.version) if each.jax == stack.jax)
    flax = "" if known or not stack.flax else f"-flax-{stack.flax}"
    return f"te-{te}-jax-{stack.jax}{flax}-{_PYTHON_TAG}"


@contextlib.contextmanager
def _locked(name: str, what: str) -> Iterator[Path]:
    """The folder of an environment, which no other process touches meanwhile; nothing half-made is left."""
    home = cache_dir() / "environments" / name
    with _explained(what):
        home.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(home.with_name(f".{name}.lock"), timeout=_MAKING_TIMEOUT_S):
            try:
                yield home
            finally:
                if not (home / _MARKER).exists():
                    shutil.rmtree(home, ignore_errors=True)


def _requirements(stack: Stack) -> list[str]:
    flax = f"flax=={stack.flax}" if stack.flax else "flax"
    return [f"jax=={stack.jax}", flax, *_stacks()["suite"]]


def _read_marker(home: Path, requirements: Sequence[str]) -> dict[str, Any] | None:
    """What was noted when an environment was complete; ``None`` if it never was, or was made from something else."""
    try:
        found: dict[str, Any] = json.loads((home / _MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found if found["requirements"] == list(requirements) else None


def _build(home: Path, subject: Subject, requirements: Sequence[str]) -> dict[str, Any]:
    """Make an environment; what is noted of it is written last."""
    what = f"the environment of {subject.label}"
    into = _create(home, sys.executable, what)
    if subject.kind is SubjectKind.FOLDER:
        # Transformer Engine asks for its own version, also where it only lies on the path.
        _write(_metadata(_PACKAGE, subject.version), _site(home))
    else:
        # Old wheels ask for CUDA packages. First, since it takes a second to learn that there is no such release.
        te = subject.where if subject.kind is SubjectKind.WHEEL else f"{_TE}=={subject.where}"
        uv("pip", "install", *into, "--no-deps", "--no-build", te, what=what)
    uv("pip", "install", *into, *requirements, what=what)
    facts = _probe(home / "bin" / "python")
    versions = {name: facts.distributions[name] for name in ("jax", "flax")}
    marker = {"requirements": list(requirements), "digest": facts.digest, **versions}
    (home / _MARKER).write_text(json.dumps(marker))
    return marker


def _create(home: Path, base: str, what: str) -> list[str]:
    """Make an empty virtual environment in place of a half-made one; returns uv's arguments to install into it."""
    if home.exists():
        shutil.rmtree(home)
    uv("venv", "--python", base, "--no-project", str(home), what=what)
    return ["--python", str(home / "bin" / "python")]


def _site(home: Path) -> Path:
    return next(home.glob("lib/python*/site-packages"))


def _overlay(subject: Subject, facts: _Facts, missing: Sequence[str]) -> Path:
    """An interpreter that has what another has, and what is missing there."""
    what = f"the packages that the suite needs beside {subject.label}"
    installed = facts.distributions
    digest = _digest_of([subject.where, installed, list(missing)])
    with _locked(f"python-{digest[:12]}", what) as home:
        if _read_marker(home, missing) is None:
            into = _create(home, facts.base, what)
            lines = [f"import site; site.addsitedir({folder!r})\n" for folder in facts.sites]
            (_site(home) / "_judged.pth").write_text("".join(lines))
            _install_beside(into, facts, missing, what)
            # What the interpreter has may be too old for what is new; that is put beside it, too.
            now = _probe(home / "bin" / "python")
            outdated = _unmet(
                now, [name for name, version in now.distributions.items() if installed.get(name) != version]
            )
            if outdated:
                _install_beside(into, facts, [*missing, *outdated], what)
            (home / _MARKER).write_text(json.dumps({"requirements": list(missing)}))
    return home / "bin" / "python"


def _install_beside(into: Sequence[str], facts: _Facts, requirements: Sequence[str], what: str) -> None:
    """Install requirements and what they need, except for what the interpreter has."""
    asked = {canonicalize_name(Requirement(requirement).name) for requirement in requirements}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excludes:
        excludes.write("\n".join(facts.distributions.keys() - asked))
        excludes.flush()
        uv("pip", "install", *into, "--excludes", excludes.name, *requirements, what=what)


def _unmet(facts: _Facts, names: Sequence[str]) -> list[str]:
    """What some of an interpreter's packages need and do not find."""
    needed = {text for name in names for text in facts.requires[name] if _applies(Requirement(text))}
    return sorted(text.partition(";")[0] for text in needed if not _is_met(text, facts.distributions))


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# --- uv ------------------------------------------------------------------------------------------------------------

_UNREACHABLE = "the package index cannot be reached: connect to the network, and run the same again"
_KNOWN_REASONS = (
    (r"No space left on device", "the disk is full: free some space, and run the same again"),
    (r"error sending request|network was disabled|timed out", _UNREACHABLE),
    (r"there is no version of ([^\s,]+)", r"the package index has no \1"),
)


def uv(*arguments: str, what: str) -> str:
    """Run uv and return what it prints.

    Args:
        arguments: uv's.
        what: the thing to be made, for the message.

    Raises:
        EnvError: uv is missing or fails.
    """
    # Not where a pyproject.toml lies, whose settings uv would take.
    with tempfile.TemporaryDirectory() as folder:
        command = [_uv_binary(), *arguments, "--quiet"]
        ended = _execute(command, cwd=Path(folder), timeout=_MAKING_TIMEOUT_S, environ=_inherited())
    if ended.code:
        raise EnvError(f"{what} cannot be made: {_reason(ended)}")
    return ended.out


def _uv_binary() -> str:
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - environments that are judged have none

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise EnvError("environments are made with uv, which is missing: pip install uv") from None


def _reason(ended: Ended) -> str:
    """Why uv failed, in one line."""
    if ended.timed_out:
        return f"uv took longer than {_MAKING_TIMEOUT_S} s"
    for pattern, reason in _KNOWN_REASONS:
        if found := re.search(pattern, ended.err):
            return found.expand(reason)
    causes = ended.err.partition("cause: ")[2] or ended.err
    return " ".join(causes.partition("\n\n")[0].split()) or f"uv ended with {ended.code}"


# --- the stage -----------------------------------------------------------------------------------------------------

# What has others judged is no part of what judges: results stay valid when it changes.
_NOT_RUN = {
    *(
        "suite",
        "commands",
        "templates",
        "cli.py",
        "__main__.py",
        "envs.py",
        "search.py",
        "releases.json",
        "stacks.toml",
    ),
    *("verify.py", "matrix.py", "bisect.py", "report.py", "console.py", "plots.py"),
    *("benchmark_plots.py", "benchmark_report.py"),
    *(
        "api.py",
        "changes.py",
        "compare.py",
        "judgement.py",
        "meaning.py",
        "policy.py",
        "upgrade.py",
        "verdict_report.py",
    ),
}


@functools.cache
def stage() -> Path:
    """A folder with copies of the package and its tests, to be the working directory of runs.

    It is made once for each content; its name is the content's digest.

    Raises:
        EnvError: the tests are missing, or it cannot be written.
    """
    with _explained("the copy of the suite"):
        files = _suite_files()
        digest = _digest_of({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
        home = cache_dir() / "suite" / digest[:16]
        if home.exists():
            os.utime(home)
        else:
            _write_stage(files, home)
    return home


@functools.cache
def measuring_digest() -> str:
    """Digest of the code that measures: the package in the stage, without the tests."""
    files = sorted(file for file in (stage() / Path(__file__).parent.name).rglob("*.py") if file.is_file())
    return _digest_of([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])[:16]


def suite_source() -> Path:
    """The folder with the tests: ``suite`` in an installed package, else the repository."""
    package = Path(__file__).parent
    return package / "suite" if (package / "suite").is_dir() else package.parent


def _suite_files() -> dict[str, bytes]:
    """The files of the stage, by their name in it."""
    package, source = Path(__file__).parent, suite_source()
    if not (source / "tests" / "claims").is_dir():
        raise EnvError(f"the tests are missing in {source}: install mnist-fp8 again")
    code = {
        f"{package.name}/{name}": text for name, text in _contents(package).items() if name.parts[0] not in _NOT_RUN
    }
    folders = [source / "tests" / name for name in ("claims", "support")]
    tests = {f"tests/{each.name}/{name}": text for each in folders for name, text in _contents(each).items()}
    settings = {name: (source / name).read_bytes() for name in ("conftest.py", "pytest.ini", "tests/expectations.toml")}
    # The package asks for its own version.
    return code | tests | settings | _metadata(package.name, __version__)


def _contents(folder: Path, without: Collection[str] = ()) -> dict[Path, bytes]:
    """What is in a folder, but for some of its files and folders."""
    files = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        file: (folder / file).read_bytes()
        for file in files
        if "__pycache__" not in file.parts and file.parts[0] not in without
    }


def _metadata(package: str, version: str) -> dict[str, bytes]:
    """What makes a folder on the path count as an installed package."""
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    return {f"{package}-{version}.dist-info/METADATA": text.encode()}


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _write_stage(files: Mapping[str, bytes], home: Path) -> None:
    """Write files so that the folder is never seen half-made; forget stages that have not been used for long."""
    home.parent.mkdir(parents=True, exist_ok=True)
    for old in home.parent.iterdir():
        if time.time() - old.stat().st_mtime > _STAGE_KEPT_S:
            shutil.rmtree(old, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=home.parent, prefix=".partial-"))
    _write(files, partial)
    try:
        partial.rename(home)
    except OSError:
        shutil.rmtree(partial)
        if not home.exists():  # another process was not faster
            raise


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the errors of disk and lock into one line."""
    try:
        yield
    except filelock.Timeout:
        raise EnvError(
            f"{what}: another process has been making it for {_MAKING_TIMEOUT_S} s; try again later"
        ) from None
    except OSError as error:
        raise EnvError(f"{what} cannot be made or run: {error.strerror or error}{_named(error)}") from error


def _named(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""
