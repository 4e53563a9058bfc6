"""The known releases of Transformer Engine, and the digests of their files."""

import functools
import hashlib
import json
from pathlib import Path

from packaging.version import InvalidVersion, Version

from mnist_fp8.core.errors import ConfigError

RELEASES_FILE = Path(__file__).with_name("releases.json")
DISTRIBUTION = "transformer-engine"


def is_version(text: str) -> bool:
    """Whether a text is a version as packages have it."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


@functools.cache
def known_digests() -> dict[str, dict[str, str]]:
    """Digests of the Python files of each release, from the oldest; `gate.names.noting` writes the file."""
    found: dict[str, dict[str, str]] = json.loads(RELEASES_FILE.read_text())
    return dict(sorted(found.items(), key=lambda item: Version(item[0])))


def releases() -> tuple[str, ...]:
    """All known releases, the oldest first."""
    return tuple(known_digests())


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
    if ends and all(map(is_version, ends)):
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
        files = known_digests()[release]
        return sum(found.get(name) == digest for name, digest in files.items()) / len(files.keys() | found.keys())

    return max(reversed(releases()), key=shared)


def file_digests(package: Path) -> dict[str, str]:
    """Digest of each Python file that the suite can see of a ``transformer_engine`` folder, by its name in it."""
    files = [package / "__init__.py", *(file for part in ("common", "jax") for file in (package / part).rglob("*.py"))]
    return {
        str(file.relative_to(package)): hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in sorted(files)
    }
