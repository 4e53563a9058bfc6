"""What a package of Transformer Engine asks for and says of itself, read from its metadata: nothing of it is run."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.metadata import Metadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mnist_fp8.core.errors import EnvError
from mnist_fp8.core.requirements import applies
from mnist_fp8.gate.releases import uv
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.uv import NoSolutionError
from mnist_fp8.record.entries import Failure, Text, Value
from mnist_fp8.record.keys import RESOLVER
from mnist_fp8.record.names import PACKAGE
from mnist_fp8.record.packages import Needs, Resolved
from mnist_fp8.record.record import Record

_STACK = ("jax", "jaxlib", "flax")
"""What Transformer Engine may ask for at any time: an entry each, so that a new requirement meets what is in use."""


def metadata_entries(package: Path, versions: Mapping[str, str]) -> dict[str, Value]:
    """What the metadata beside a ``transformer_engine`` folder say; nothing where there are none, as in a checkout.

    Args:
        package: the folder.
        versions: of what is installed with it, Python included, by name.
    """
    folder = _folder(package)
    if folder is None:
        return {}
    try:
        return _entries(_read(folder), _tags(folder), versions)
    except (OSError, ValueError, ExceptionGroup) as error:
        return {"package/metadata": Failure.of(error)}


def _entries(about: Metadata, tags: Sequence[str], versions: Mapping[str, str]) -> dict[str, Value]:
    needed = dict.fromkeys(_STACK, "") | {_name(each): _versions(each, about) for each in _applying(about)}
    entries: dict[str, Value] = {
        f"package/requires/{name}": Needs(wanted, versions.get(name, "")) for name, wanted in needed.items()
    }
    entries["package/python"] = Needs(str(about.requires_python or ""), versions.get("python", ""))
    for extra in about.provides_extra or ():
        wanted = sorted(f"{_name(each)}{_versions(each, about)}" for each in _applying(about, extra))
        entries[f"package/extra/{extra}"] = Text(", ".join(wanted) or "nothing")
    entries["package/tags"] = Text(", ".join(tags))
    entries["package/licence"] = Text(str(about.license_expression or about.license or "none named"))
    return entries


def with_answers(pair: Sequence[Environment], records: Sequence[Record]) -> tuple[Record, Record]:
    """Both records, with what uv says of each beside the JAX, Flax and Python of the old one.

    If it cannot be asked, or does not know the old installation itself, it says nothing of either.
    """
    old, new = records
    folders = [_folder(environment.package) for environment in pair]
    if not all(folders) or old.problem or new.problem:
        return old, new
    beside = [f"{name}=={old.environment[name]}" for name in ("jax", "flax") if name in old.environment]
    answers: list[Value]
    try:
        answers = [_answer(_applying(_read(folder)), beside, pair[0].python) for folder in folders if folder]
        if isinstance(answers[0], Resolved) and not answers[0].ok:
            answers = [Failure("NoSolutionError", answers[0].reason)] * 2
    except (EnvError, OSError, ValueError, ExceptionGroup) as error:
        answers = [Failure.of(error)] * 2
    old, new = (
        dataclasses.replace(record, entries={**record.entries, RESOLVER: answer})
        for record, answer in zip(records, answers, strict=True)
    )
    return old, new


def _answer(requirements: Iterable[Requirement], beside: Sequence[str], python: Path) -> Resolved:
    asked = [f"{each.name}{each.specifier}" if each.url is None else str(each) for each in requirements]
    if asked:  # what asks for nothing goes with everything
        try:
            uv.resolve([*asked, *beside], "--no-build", what="the list of packages", python=python)
        except NoSolutionError as error:
            return Resolved(ok=False, reason=error.words)
    return Resolved(ok=True)


def _folder(package: Path) -> Path | None:
    found = (file.parent for file in package.parent.glob(f"{PACKAGE}-*.dist-info/METADATA"))
    return next(found, None)


def _read(folder: Path) -> Metadata:
    """The fields that are used; others may be of a standard that is not known yet."""
    raw, _ = parse_email((folder / "METADATA").read_bytes())
    return Metadata.from_raw(raw, validate=False)


def _applying(about: Metadata, extra: str = "") -> list[Requirement]:
    """What is asked for here; with an extra, what that adds."""
    every = about.requires_dist or []
    return [each for each in every if applies(each, extra) and not (extra and applies(each))]


def _name(requirement: Requirement) -> str:
    return str(canonicalize_name(requirement.name))


def _versions(requirement: Requirement, about: Metadata) -> str:
    """The versions that are asked for. The release's own number would differ each time, and mean the same."""
    if str(requirement.specifier) == f"=={about.version}":
        return " of the same version"
    return requirement.url or str(requirement.specifier)


def _tags(folder: Path) -> list[str]:
    """The tags of the wheel."""
    file = folder / "WHEEL"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return sorted(line.partition(":")[2].strip() for line in lines if line.startswith("Tag:"))
