"""Which layers of TE a program calls, and which of them another program lacks."""

import fnmatch
from collections.abc import Iterable, Iterator

from mnist_fp8.te.calls import Site


def lacking(known: Iterable[Site], found: Iterable[Site]) -> list[Site]:
    """The layers of one program that another does not call; one site for each.

    A Flax module is known by its path, of which one program may have more than the other. Calls outside of modules are
    known by their lines, which two programs need not share: what counts is how many lines there are.
    """
    modules, lines = _split(known)
    others, other_lines = _split(found)
    lost = [site for path, site in modules.items() if not any(_is_same(path, other) for other in others)]
    if len(other_lines) < len(lines):
        lost += [site for place, site in lines.items() if place not in other_lines]
    return lost


def _split(sites: Iterable[Site]) -> tuple[dict[str, Site], dict[str, Site]]:
    """The first site of each module by its path, and of each line outside of modules."""
    modules, lines = dict[str, Site](), dict[str, Site]()
    for site in sites:
        (modules if site.module else lines).setdefault(site.module or site.place, site)
    return modules, lines


def _is_same(path: str, other: str) -> bool:
    return f"/{path}".endswith(f"/{other}") or f"/{other}".endswith(f"/{path}")


def matches(site: Site, patterns: Iterable[str]) -> bool:
    """Whether a pattern such as ``*/head`` is of the module that makes a call."""
    return any(fnmatch.fnmatchcase(site.module, pattern) for pattern in patterns)


def unmatched(patterns: Iterable[str], sites: Iterable[Site]) -> Iterator[str]:
    """The patterns that are of no module of a program."""
    found = list(sites)
    return (pattern for pattern in patterns if not any(matches(site, (pattern,)) for site in found))
