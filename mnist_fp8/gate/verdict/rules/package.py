"""What it means that a package asks for something else, or says something else of itself."""

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, breaks, changes, note
from mnist_fp8.record.keys import RESOLVER
from mnist_fp8.record.packages import Needs, Resolved

REQUIREMENT_UNMET = breaks(
    "package-requirement-unmet",
    "it asks for another version than the one in use",
    "pip does not install it beside what you use, or replaces that.",
    "Move JAX, Flax or Python together with it, or stay.",
)
NOT_INSTALLABLE = breaks(
    "package-not-installable",
    "no resolver can install it beside the JAX, Flax and Python in use",
    "pip and uv refuse the upgrade.",
    "Read what uv says; move what it names together with it, or stay.",
)
EXTRA_GONE = breaks(
    "package-extra-gone",
    "a documented extra is gone",
    "pip installs without it and warns only: the extension for JAX is missing then.",
    "Install what the extra brought by its own name.",
)
REQUIREMENT = changes(
    "package-requirement-changed",
    "it asks for other versions",
    "What is in use still fits, but pip may install something else than before.",
    "Look at what it asks for; update your own pins.",
)
EXTRA = changes(
    "package-extra-changed",
    "an extra is other than it was",
    "pip installs something else for it, or knows it no longer.",
    "Look whether you install it.",
)
ABOUT = changes(
    "package-metadata-changed",
    "the package says something else of itself",
    "Another licence, other platforms, or metadata that cannot be read.",
    "Read it.",
)
EXTRA_NEW = note("package-extra-new", "a new extra", "There is one more to choose.")
INSTALLABLE = note("package-installable", "a resolver can install it now", "It fits beside what is in use.")
NOT_ASKED = note(
    "package-resolver-not-asked",
    "no resolver was asked about one side",
    "Whether pip installs it beside what is in use is not verified.",
)

RULES = (
    *(REQUIREMENT_UNMET, NOT_INSTALLABLE, EXTRA_GONE, REQUIREMENT, EXTRA, ABOUT),
    *(EXTRA_NEW, INSTALLABLE, NOT_ASKED),
)

_DOCUMENTED_EXTRAS = ("jax",)
"""Those for JAX that TE's guide to its installation names."""


def rule_of_package(change: EntryChange) -> Rule:
    """The rule for what a package asks for or says."""
    old, new = change.old, change.new
    if change.key == RESOLVER:
        if not (isinstance(old, Resolved) and isinstance(new, Resolved)):
            return NOT_ASKED
        return INSTALLABLE if new.ok else NOT_INSTALLABLE
    if change.subject == "extra":
        if old is None:
            return EXTRA_NEW
        return EXTRA_GONE if new is None and change.name in _DOCUMENTED_EXTRAS else EXTRA
    if isinstance(new, Needs) and not _is_met(new, old.found if isinstance(old, Needs) else new.found):
        return REQUIREMENT_UNMET
    return REQUIREMENT if isinstance(new, Needs) or isinstance(old, Needs) else ABOUT


def _is_met(needs: Needs, found: str) -> bool:
    """Whether the version in use is one of those that are asked for; what is not in use can be installed."""
    try:
        return not found or SpecifierSet(needs.versions).contains(found, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):  # a URL, or a version of somebody's own: a resolver has to say it
        return True
