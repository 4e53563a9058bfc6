"""An environment for one Transformer Engine, made once with uv and kept in the cache."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import filelock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.files import cache_dir, digest_of
from mnist_fp8.core.model import CONTENTS
from mnist_fp8.core.requirements import applies
from mnist_fp8.core.run_kind import RunKind, requested_run_kind
from mnist_fp8.gate.releases import contents, identity, stacks, staging, uv
from mnist_fp8.gate.releases.catalogue import DISTRIBUTION
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.interpreters import IMPORTED, Facts, probe, users_path
from mnist_fp8.gate.releases.processes import MAKING_TIMEOUT_S, Ended, closed, execute, explained, inherited
from mnist_fp8.gate.releases.stacks import Stack, satisfies, stack_for, stacks_for
from mnist_fp8.gate.releases.staging import distribution_metadata, write_tree
from mnist_fp8.record.names import PACKAGE

_AS_FOUND = ("jax", "jaxlib", "flax", "numpy", "ml-dtypes")
"""What an interpreter has to have itself: another version beside its own would be another edition."""
_PYTHON_TAG = f"py{sys.version_info.major}.{sys.version_info.minor}"
_MARKER = "complete.json"


@dataclass(frozen=True)
class Environment:
    """A Python in which a Transformer Engine is judged.

    Attributes:
        edition: what is judged.
        python: the interpreter.
        jax: version of JAX there.
        flax: version of Flax there.
        digest: its identity: of all that is imported and loaded there, see `identity`.
        variables: environment variables that a run needs; ``PYTHONPATH`` has the stage.
        package: folder of ``transformer_engine``.
        folders: where the packages lie that a run imports.
    """

    edition: Edition
    python: Path
    jax: str
    flax: str
    digest: str
    variables: Mapping[str, str]
    package: Path
    folders: tuple[Path, ...] = ()
    identify: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        timeout: float,
        output: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command with this environment's programs first on ``PATH``.

        Args:
            command: program and arguments.
            cwd: working directory.
            timeout: seconds after which it is ended.
            output: file for everything printed; ``None`` returns it.
            environ: its environment variables; ``None`` is those of a run of ours.

        Raises:
            OSError: there is no such program.
            KeyboardInterrupt: interrupted, or `stop_all` was called; the command and its children are gone.
        """
        environ = self.environ if environ is None else environ
        return execute(self.command(command), cwd=cwd, timeout=timeout, environ=environ, output=output)

    @property
    def marker(self) -> Path:
        """The file that is written last when this environment is made; an interpreter as it is has none."""
        return self.python.parent.parent / _MARKER

    def check_unedited(self) -> None:
        """See that what is imported and loaded here is what it was when this was prepared.

        Raises:
            EnvError: it is not.
        """
        with contextlib.suppress(OSError):  # something is gone, or may not be read any more
            if self.identify is None or self.identify() == self.digest:
                return
        raise EnvError(
            f"{self.edition.label} was edited while it was judged: no result counts; run the same again, and leave"
            f" {self.package.parent} and the packages beside it alone meanwhile"
        )

    def command(self, words: Sequence[str]) -> list[str]:
        """A command with its program found here: a new process would look it up on our own ``PATH``."""
        return [shutil.which(words[0], path=self.environ["PATH"]) or words[0], *words[1:]]

    @property
    def environ(self) -> dict[str, str]:
        """All environment variables of a run of ours."""
        return self._first_on_path(closed(self._own))

    @property
    def program_environ(self) -> dict[str, str]:
        """All environment variables of a program of the user: the user's own, but for those of another Python.

        In an environment that was made for a release it imports Transformer Engine as it would anywhere.
        """
        own = self._own
        if self.edition.kind is not EditionKind.INTERPRETER:
            hook = staging.stage() / staging.PACKAGE_FOLDER.name / "te" / "program"
            own["PYTHONPATH"] = os.pathsep.join([str(hook), own.get("PYTHONPATH", "")])
        return self._first_on_path(inherited() | own)

    @property
    def _own(self) -> dict[str, str]:
        # What Python compiles lies apart from what it compiles: each content has its own, a user's model included,
        # and nothing is written into the folders of others.
        content = "-".join(filter(None, [self.digest[:16], self.variables.get(CONTENTS)]))
        return {"PYTHONPYCACHEPREFIX": str(_bytecode() / content), **self.variables}

    def _first_on_path(self, environ: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(self.python.parent), environ.get("PATH", os.defpath)])
        return {**environ, "PATH": path}


def prepare(
    edition: Edition,
    *,
    jax: str | None = None,
    flax: str | None = None,
    packages: Sequence[str] = (),
    imported: Sequence[str] = (),
) -> Environment:
    """Make the environment in which an edition is judged, or find it in the cache.

    Args:
        edition: what is to be judged.
        jax: version of JAX instead of the newest that works.
        flax: version of Flax instead of the one that goes with it.
        packages: requirements of what a run needs besides; an interpreter is not given any.
        imported: packages of an interpreter that a run imports besides, wherever they lie.

    Raises:
        ConfigError: what is asked for contradicts itself, or no JAX is known to work.
        EnvError: it cannot be made; the same can be tried again.
    """
    staging.forget_unused(_bytecode())
    if edition.kind is EditionKind.INTERPRETER:
        if jax is not None or flax is not None:
            raise ConfigError(
                f"{edition.label} is judged with the JAX and Flax that it has; asked for was {jax or flax}"
            )
        return _adopt(edition, imported)
    if requested_run_kind() is RunKind.KERNEL:
        raise ConfigError(
            f"MNIST_FP8_TE=kernel, but the environment of {edition.label} is made with a JAX without CUDA: name an"
            " interpreter that has Transformer Engine's CUDA extension, or unset the variable"
        )
    stack = stack_for(edition.version, jax, flax)
    with _locked(_name(edition, stack, packages), f"the environment of {edition.label}") as home:
        made = _kept(home, _requirements(stack, packages)) or _build(home, edition, _requirements(stack, packages))
    on_path, first = [str(staging.stage())], _site(home)
    if edition.kind is EditionKind.FOLDER:
        on_path.append(edition.where)
        first = Path(edition.where)
    variables = {"PYTHONPATH": os.pathsep.join(on_path), "MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}
    python, facts, site = home / "bin" / "python", made.facts, _site(home)
    beside = None if first == site else first
    return Environment(
        *(edition, python, facts["jax"], facts["flax"], identity.of_made(made.files, beside), variables),
        package=first / PACKAGE,
        folders=(site,),
        identify=lambda: identity.of_made(_files(home), beside),
    )


def _bytecode() -> Path:
    """The folder for what Python compiles."""
    return cache_dir() / "bytecode"


def _adopt(edition: Edition, imported: Sequence[str]) -> Environment:
    """An interpreter as it is; where packages of the suite are missing, they are put beside it, not into it."""
    python, pythonpath = Path(edition.where), users_path()
    facts = probe(python, pythonpath=pythonpath)
    absent = [name for name in _AS_FOUND if name not in facts.distributions]
    if absent:
        raise EnvError(f"{edition.label} has no {' and no '.join(absent)}: install what Transformer Engine needs there")
    if facts.package is None:
        raise EnvError(f"{edition.label} has no {PACKAGE} any more: install it there again")
    package = facts.package
    missing = [
        requirement for requirement in stacks.read_stacks()["suite"] if not _is_met(requirement, facts.distributions)
    ]
    if missing:
        python = _overlay(edition, facts, missing)
    known = [*IMPORTED, *imported]
    beside, facts = facts, probe(python, pythonpath=pythonpath, stage=staging.stage(), imported=known)
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, [str(staging.stage()), pythonpath]))}
    installed = facts.distributions
    sites = {*beside.sites, *facts.sites}
    identify = functools.partial(identity.of_adopted, facts, sites, package)
    folders = tuple(Path(place) for place in facts.path) + tuple(Path(place).parent for place in facts.places)
    versions = installed["jax"], installed["flax"]
    return Environment(edition, python, *versions, identify(), variables, package, folders, identify)


def _is_met(requirement: str, installed: Mapping[str, str]) -> bool:
    """Whether an interpreter has a package in a version that the suite can use, or has to be taken as it is."""
    parsed = Requirement(requirement)
    name = canonicalize_name(parsed.name)
    return name in _AS_FOUND or (name in installed and satisfies(installed[name], str(parsed.specifier)))


def _name(edition: Edition, stack: Stack, packages: Sequence[str] = ()) -> str:
    """Folder of an environment. All folders of one version share one: they are on its path, not in it."""
    te = edition.version
    if edition.kind is EditionKind.WHEEL:
        te += "-wheel-" + hashlib.sha256(Path(edition.where).read_bytes()).hexdigest()[:12]
    elif edition.kind is EditionKind.FOLDER:
        te += "-folder"
    known = any(stack.flax == each.flax for each in stacks_for(edition.version) if each.jax == stack.jax)
    flax = "" if known or not stack.flax else f"-flax-{stack.flax}"
    more = f"-with-{digest_of(list(packages))[:12]}" if packages else ""
    return f"te-{te}-jax-{stack.jax}{flax}{more}-{_PYTHON_TAG}"


@contextlib.contextmanager
def _locked(name: str, what: str) -> Iterator[Path]:
    """The folder of an environment, which no other process touches meanwhile; nothing half-made is left."""
    home = cache_dir() / "environments" / name
    with explained(what):
        home.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(home.with_name(f".{name}.lock"), timeout=MAKING_TIMEOUT_S):
            try:
                yield home
            finally:
                if not (home / _MARKER).exists():
                    shutil.rmtree(home, ignore_errors=True)


def _requirements(stack: Stack, packages: Sequence[str]) -> list[str]:
    flax = f"flax=={stack.flax}" if stack.flax else "flax"
    return [f"jax=={stack.jax}", flax, *stacks.read_stacks()["suite"], *packages]


@dataclass(frozen=True)
class _Made:
    """A complete environment: what was noted of it, and the digests of its files."""

    facts: Mapping[str, str]
    files: Mapping[str, str]


def _kept(home: Path, requirements: Sequence[str]) -> _Made | None:
    """An environment as it was made; ``None`` if it never was, was made from something else, or has changed since."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        noted = json.loads((home / _MARKER).read_text())
        files = _files(home)
        if (noted["requirements"], noted["contents"]) == (list(requirements), digest_of(files)):
            return _Made(noted["facts"], files)
    return None


def _files(home: Path) -> dict[str, str]:
    """Digests of all files of an environment, but for what is noted of it."""
    return {name: digest for name, digest in contents.digests(home).items() if name not in (_MARKER, ".lock")}


def _note(home: Path, requirements: Sequence[str], **facts: str) -> _Made:
    """Note that an environment is complete."""
    files = _files(home)
    noted = {"requirements": list(requirements), "contents": digest_of(files), "facts": facts}
    (home / _MARKER).write_text(json.dumps(noted))
    return _Made(facts, files)


def _build(home: Path, edition: Edition, requirements: Sequence[str]) -> _Made:
    """Make an environment; what is noted of it is written last."""
    what = f"the environment of {edition.label}"
    _install(home, edition, requirements, what)
    if identity.damaged(home, _files(home)):  # an edit of an environment reaches uv's cache, where files are linked
        _install(home, edition, requirements, what, "--no-cache")
    if wrong := identity.damaged(home, _files(home)):
        raise EnvError(f"{what} cannot be made: {wrong[0]} is not what its package says; run the same again")
    facts = probe(home / "bin" / "python")
    if edition.kind is not EditionKind.FOLDER and facts.package != _site(home) / PACKAGE:
        raise EnvError(f"{what} cannot be made: {PACKAGE} is {facts.package or 'not there'}, not in {_site(home)}")
    return _note(home, requirements, jax=facts.distributions["jax"], flax=facts.distributions["flax"])


def _install(home: Path, edition: Edition, requirements: Sequence[str], what: str, *options: str) -> None:
    into = [*_create(home, sys.executable, what), *options]
    if edition.kind is EditionKind.FOLDER:
        # Transformer Engine asks for its own version, also where it only lies on the path.
        write_tree(distribution_metadata(PACKAGE, edition.version), _site(home))
    else:
        # Old wheels ask for CUDA packages. First, since it takes a second to learn that there is no such release.
        te = edition.where if edition.kind is EditionKind.WHEEL else f"{DISTRIBUTION}=={edition.where}"
        uv.run("pip", "install", *into, "--no-deps", "--no-build", te, what=what)
    _install_but_for([DISTRIBUTION], into, requirements, what)


def _create(home: Path, base: str, what: str) -> list[str]:
    """Make an empty virtual environment in place of a half-made one; returns uv's arguments to install into it."""
    if home.exists():
        shutil.rmtree(home)
    uv.run("venv", "--python", base, "--no-project", str(home), what=what)
    return ["--python", str(home / "bin" / "python")]


def _site(home: Path) -> Path:
    return next(home.glob("lib/python*/site-packages"))


def _overlay(edition: Edition, facts: Facts, missing: Sequence[str]) -> Path:
    """An interpreter that has what another has, and what is missing there."""
    what = f"the packages that the suite needs beside {edition.label}"
    installed = facts.distributions
    digest = digest_of([edition.where, installed, list(missing)])
    with _locked(f"python-{digest[:12]}", what) as home:
        if _kept(home, missing) is None:
            into = _create(home, facts.base, what)
            lines = [f"import site; site.addsitedir({folder!r})\n" for folder in facts.sites]
            (_site(home) / "_judged.pth").write_text("".join(lines), encoding="utf-8")
            _install_beside(into, facts, missing, what)
            # What the interpreter has may be too old for what is new; that is put beside it, too.
            now = probe(home / "bin" / "python")
            outdated = _unmet(
                now, [name for name, version in now.distributions.items() if installed.get(name) != version]
            )
            if outdated:
                _install_beside(into, facts, [*missing, *outdated], what)
            _note(home, missing)
    return home / "bin" / "python"


def _install_beside(into: Sequence[str], facts: Facts, requirements: Sequence[str], what: str) -> None:
    """Install requirements and what they need, except for what the interpreter has."""
    asked = {canonicalize_name(Requirement(requirement).name) for requirement in requirements}
    _install_but_for(facts.distributions.keys() - asked, into, requirements, what)


def _install_but_for(names: Collection[str], into: Sequence[str], requirements: Sequence[str], what: str) -> None:
    """Install requirements and what they need, except for packages of some names."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excludes:
        excludes.write("\n".join(names))
        excludes.flush()
        uv.run("pip", "install", *into, "--excludes", excludes.name, *requirements, what=what)


def _unmet(facts: Facts, names: Sequence[str]) -> list[str]:
    """What some of an interpreter's packages need and do not find."""
    needed = {text for name in names for text in facts.requires[name] if applies(Requirement(text))}
    return sorted(text.partition(";")[0] for text in needed if not _is_met(text, facts.distributions))
