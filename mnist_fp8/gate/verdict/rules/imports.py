"""What it means that an import does something else to its process.

It is CHANGED at most, but for the exit code of programs: what becomes of results is measured after the import, by other
areas, and breaks there.
"""

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, breaks, changes, note
from mnist_fp8.record.packages import Imported

PACKAGE = changes(
    "import-needs-undeclared-package",
    "the import uses a package that nothing asks for",
    "pip does not install this package with Transformer Engine. Without it the import may fail.",
    "Ask for it yourself.",
)
EXIT_CODE = breaks(
    "import-changes-exit-code",
    "programs end with another exit code",
    "A program that does nothing but import it ends otherwise: a script takes success for a failure, or a failure for"
    " success.",
    "Do not upgrade.",
)
EFFECT = changes(
    "import-changes-process",
    "the import changes its process",
    "What is one for a whole process is another after the import, for all else that runs there.",
    "Look who relies on it; set it back after the import.",
)
_KINDS = {
    "JAX configuration": changes(
        "import-changes-jax-config",
        "the import configures JAX",
        "All programs of the process run with this option, also those without Transformer Engine.",
        "Set the option back after the import, and see whether your results change.",
    ),
    "JAX": changes(
        "import-starts-jax",
        "the import starts JAX",
        "Flags, devices and jax.distributed.initialize that come after the import have no effect, or fail.",
        "Set them before the import.",
    ),
    "libraries": changes(
        "import-patches-library",
        "the import replaces parts of other libraries",
        "JAX, Flax, NumPy or Python do something else for the whole process, also without Transformer Engine.",
        "Read what is replaced; test programs without Transformer Engine in the same process.",
    ),
    "environment variables": changes(
        "import-sets-environment-variables",
        "the import sets environment variables",
        "Libraries that read them later, and all programs that the process starts, see these values.",
        "Check whether JAX, XLA or a library of yours reads them.",
    ),
    "warning filters": changes(
        "import-filters-warnings",
        "the import filters warnings",
        "Warnings of your own code and of other libraries are hidden, or raised as errors.",
        "Set your own filters after the import.",
    ),
    "logging": changes(
        "import-changes-logging",
        "the import changes logging",
        "Messages of other loggers are lost, or appear twice or in another form.",
        "Configure logging after the import.",
    ),
    "output": changes(
        "import-prints",
        "the import prints",
        "Each process that imports it prints this. Programs whose output is read by others may fail.",
        "Look whether anything reads the output of your programs.",
    ),
    "end": changes(
        "import-prints-at-exit",
        "it prints at the end of a process",
        "Each process that imported it prints this when it ends.",
        "Read it.",
    ),
    "signal handlers": changes(
        "import-handles-signals",
        "the import handles signals",
        "Ctrl-C, the end that a scheduler sends, or a crash is treated otherwise.",
        "Install your own handlers after the import.",
    ),
    "threads": changes(
        "import-starts-threads",
        "the import starts threads or processes",
        "A process with threads cannot be forked safely, and may not end.",
        "Fork before the import.",
    ),
    "exit handlers": changes(
        "import-registers-exit-handlers",
        "the import registers what runs at exit",
        "Something runs when a process ends, in the order of registration.",
        "Look whether your programs still end as they did.",
    ),
    "import system": changes(
        "import-changes-import-system",
        "the import changes how modules are found",
        "Imports that come later may find other files.",
        "Check where your modules come from.",
    ),
}
GONE = note("import-effect-gone", "the import no longer does it", "The import leaves its process alone in this.")
USED = note("import-uses-package", "the import uses another package", "pip brings it.")
OTHER_WORDS = note("import-prints-other-words", "the import prints other words", "It printed before, too.")

RULES = (EXIT_CODE, PACKAGE, *_KINDS.values(), EFFECT, GONE, USED, OTHER_WORDS)


def rule_of_import(change: EntryChange) -> Rule:
    """The rule for what an import does to its process."""
    if isinstance(change.new, Imported):
        return USED if change.new.declared else PACKAGE
    if change.key == "import/end/exit code":
        return EXIT_CODE
    if change.new is None:
        return GONE
    if change.old is not None and change.subject in ("output", "end"):
        return OTHER_WORDS
    return _KINDS.get(change.subject, EFFECT)
