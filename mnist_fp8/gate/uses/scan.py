"""Finds every use of Transformer Engine in a user's sources. None of them is run.

A glance at each file tells whether it names the package, and what it imports; those that may use it are parsed and
evaluated, by two processes where there is much of them. What was found is kept, and taken again as long as no file has
changed.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import multiprocessing
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import msgspec

from mnist_fp8.core.files import digest_of, replace_file
from mnist_fp8.core.processor import usable_cores
from mnist_fp8.gate.uses.evaluation import Evaluated, candidates, evaluate, evaluate_apart
from mnist_fp8.gate.uses.project import Facts, Project
from mnist_fp8.gate.uses.sources import (
    Kind,
    Source,
    Sources,
    UnreadableError,
    decode,
    find_sources,
    names_package,
    read_source,
)
from mnist_fp8.gate.uses.use import Place, Unread, Use, UseKind, Uses
from mnist_fp8.record.names import PACKAGE

_SHARED = 2 * 2**20
"""Bytes of source that are worth a second process."""
_FRESH_NS = 2 * 10**9
"""A file that changed so short ago may change again within one tick of the clock."""
_NAME = re.compile(r"transformer_engine(?:\.[A-Za-z_]\w*)+")
_COMMENT = re.compile(r"(?:^|\s)[#;].*")


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A result, and the digest of all that it depends on."""

    key: str
    uses: Uses


def find_uses(paths: Sequence[Path], cache_dir: Path | None = None) -> Uses:
    """Every use of Transformer Engine below some paths.

    Args:
        paths: files and folders of the user's.
        cache_dir: where results are kept; ``None`` keeps none.

    Raises:
        ConfigError: a path leads nowhere.
    """
    return dataclasses.replace(_kept_or_found(paths, cache_dir), paths=tuple(map(str, paths)))


def _kept_or_found(paths: Sequence[Path], cache_dir: Path | None) -> Uses:
    sources = find_sources(paths)
    if cache_dir is None:
        return _scan(sources)
    key = _key(sources)
    file = cache_dir / "uses" / f"{digest_of([str(path.absolute()) for path in paths])[:16]}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError, ValueError, RecursionError):  # damaged, or not there
        kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
        if kept.key == key:
            return kept.uses
    uses = _scan(sources)
    before = time.time_ns() - _FRESH_NS
    if all(max(source.stamp[3:]) < before for source in sources.files):
        with contextlib.suppress(OSError):  # then they are looked for again
            replace_file(file, msgspec.json.encode(_Kept(key, uses)))
    return uses


def _key(sources: Sources) -> str:
    """Digest of the files, of this code and of the Python that parses."""
    code = [(file.name, file.read_text()) for file in sorted(Path(__file__).parent.glob("*.py"))]
    files = [(source.path, source.shown, source.stamp) for source in sources.files]
    return digest_of([platform.python_version(), code, files, msgspec.to_builtins(sources.unread), sources.left_out])


def _scan(sources: Sources) -> Uses:
    uses: list[Use] = []
    unread = [*sources.unread]
    facts: dict[str, Facts] = {}
    for source in sources.files:
        try:
            content = read_source(source)
            facts[source.path] = Facts.of(content)
            if source.kind is Kind.CONFIGURATION and facts[source.path].names_package:
                uses += _texts(source, decode(content, is_python=False))
        except UnreadableError as error:
            facts.pop(source.path, None)
            unread.append(Unread(Place(source.shown, error.line), error.reason, names_package(source)))
    modules = [each for each in sources.files if each.path in facts and each.kind is not Kind.CONFIGURATION]
    for found, missed in _evaluated(modules, facts):
        uses += found
        unread += missed
    return Uses(
        tuple(sorted(uses, key=lambda use: (*use.place.order, use.path, use.kind.value))),
        tuple(sorted(unread, key=lambda each: (*each.place.order, each.reason))),
        len(facts),
        sum(each.lines for each in facts.values()),
        sources.left_out,
    )


def _texts(source: Source, text: str) -> Iterator[Use]:
    """Names in a file of configuration, without its comments."""
    for number, line in enumerate(text.splitlines(), 1):
        if PACKAGE in line:
            code = line if source.path.endswith(".json") else _COMMENT.sub("", line)
            for match in _NAME.finditer(code):
                yield Use(match[0], UseKind.TEXT, Place(source.shown, number, match.start() + 1, source=line.strip()))


def _evaluated(modules: Sequence[Source], facts: Mapping[str, Facts]) -> list[Evaluated]:
    """What is found in modules, by this process and another if they are large."""
    project = Project(modules, facts)
    targets = candidates(project)
    sizes = [project.files[target].stamp[2] for target in targets]
    total = sum(sizes)
    if total < _SHARED or usable_cores() == 1:
        return [evaluate(project, targets)]
    middle = next(index for index, end in enumerate(itertools.accumulate(sizes, initial=0)) if 2 * end >= total)
    spawn = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            other = pool.submit(evaluate_apart, modules, facts, targets[middle:])
            return [evaluate(project, targets[:middle]), other.result()]
    except (BrokenProcessPool, OSError):  # no other process can be had
        return [evaluate_apart(modules, facts, targets)]
