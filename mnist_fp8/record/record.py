"""What is known of an installation of Transformer Engine: entries, names and the suite's result, and their JSON.

Entries are a flat collection by key. A key reads ``area/subject/what``, such as
``numerics/DelayedScaling/output against float64``; areas are listed in `AREAS`. What differs between two records is
found by `compare`, entry by entry.
"""

import dataclasses
import functools
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from mnist_fp8.core import capability, model
from mnist_fp8.core.capability import Capability, requested_capability
from mnist_fp8.core.errors import RecordError
from mnist_fp8.core.plain import clean
from mnist_fp8.core.reading import parse_json, read_text
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.record.checkpoints import CHECKPOINTS
from mnist_fp8.record.claims import SuiteResult
from mnist_fp8.record.entries import Value
from mnist_fp8.record.entries_json import entries_from_json, entries_to_json
from mnist_fp8.record.keys import LAYERS
from mnist_fp8.record.names import Names
from mnist_fp8.record.names_json import names_from_json, names_to_json

SCHEMA_VERSION = 2
"""Of stored records; raised when an entry changes its meaning."""
DAMAGE = (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
"""What reading something else than a record raises."""
_ASKED = {capability.VARIABLE: "pretended compute capability", model.VARIABLE: "model"}
"""What can be asked of a run, by its variable."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of one installation.

    Attributes:
        te: the Transformer Engine, as a person reads it.
        version: of Transformer Engine.
        run: ``kernel`` or ``host``; empty if nothing was measured or it did not come that far.
        environment: versions, device and kind of run, by name.
        settings: digest of the code that measured; records of different settings do not hold the same entries.
        arguments: command-line words that name this installation.
        entries: what was measured, by key.
        seconds: how long measuring took.
        problem: why nothing could be measured, in Transformer Engine's words and one line; empty if it could.
        suite: what the suite said of the same installation; ``None`` if it was not asked.
        only: keys of what was asked for; empty if everything was.
        names: every name of it, private ones too; ``None`` where they were not asked for or cannot be read.
    """

    te: str
    version: str
    run: str
    environment: Mapping[str, str]
    settings: str
    arguments: tuple[str, ...]
    entries: Mapping[str, Value]
    seconds: float
    problem: str = ""
    suite: SuiteResult | None = None
    only: tuple[str, ...] = ()
    names: Names | None = None

    @property
    def name(self) -> str:
        """What was measured, with its version."""
        return self.te if self.version in self.te else f"{self.version} ({self.te})"

    @property
    def title(self) -> str:
        """What was measured and what it ran with, in one line."""
        names = {"jax": "JAX", "flax": "Flax", "python": "Python", **_ASKED}
        parts = [f"{word} {self.environment[name]}" for name, word in names.items() if self.environment.get(name)]
        return f"TE {self.name} ({', '.join(parts)})" if parts else f"TE {self.name}"

    @property
    def capability(self) -> Capability | None:
        """The compute capability that its host run was asked to pretend; ``None`` where that was left to the recipe."""
        return requested_capability(self.environment)

    @property
    def capability_arguments(self) -> tuple[str, ...]:
        """Command-line words that ask for that capability, if one was."""
        return (capability.OPTION, str(self.capability)) if self.capability else ()

    def model_arguments(self, *keys: str) -> tuple[str, ...]:
        """Command-line words that name the user's model, if there is one and some of the keys are of it."""
        name = self.environment.get(model.VARIABLE, "")
        if not name or not may_be_of_model(name, keys):
            return ()
        folder = self.environment.get(model.FOLDER)
        return ("--model", name, *(("--model-path", folder) if folder else ()))

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the version of its schema."""
        fields = {name: msgspec.to_builtins(getattr(self, name)) for name in _types()}
        names = self.names and names_to_json(self.names)
        return {"schema_version": SCHEMA_VERSION, **fields, "entries": entries_to_json(self.entries), "names": names}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            RecordError: it is of another version.
            msgspec.ValidationError, ValueError, KeyError, TypeError, AttributeError: it is no record.
        """
        version = msgspec.convert(document["schema_version"], int)
        if version != SCHEMA_VERSION or "entries" not in document:
            raise RecordError(f"schema version {version}, but this mnist-fp8 reads {SCHEMA_VERSION}: measure it again")
        whole = {"only": (), "names": None, **document}  # which older records do not have
        fields = {name: msgspec.convert(whole[name], wanted) for name, wanted in _types().items()}
        if fields["run"] not in ("", *(kind.value for kind in RunKind)):
            raise ValueError(f"{fields['run']!r} is no kind of run")
        requested_capability(fields["environment"])
        names = None if whole["names"] is None else names_from_json(whole["names"])
        return cls(**fields, entries=entries_from_json(document["entries"]), names=names)


def may_be_of_model(name: str, keys: Iterable[str]) -> bool:
    """Whether some keys, or patterns, are of a user's model, or of more: of claims on models, or of its entries."""
    return may_be_under((f"{LAYERS}/{name}", CHECKPOINTS, f"claims/{model.CLAIMS}"), keys)


def may_be_under(own: tuple[str, ...], keys: Iterable[str]) -> bool:
    """Whether some keys, or patterns, may name something that begins with one of these."""
    literals = [key.partition("*")[0].rstrip("/") for key in keys]
    return any(literal.startswith(own) or any(each.startswith(literal) for each in own) for literal in literals)


@functools.cache
def _types() -> dict[str, Any]:
    """Types of the fields, but for those that have a form of their own."""
    return {name: hint for name, hint in typing.get_type_hints(Record).items() if name not in ("entries", "names")}


def read_record(path: Path) -> Record:
    """Read a record from its file.

    Raises:
        RecordError: there is none, or it is something else; one line that says what to do.
    """
    try:
        return Record.from_json(parse_json(read_text(path)))
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from error
    except RecordError as error:
        raise RecordError(f"record {path} has {error}") from error
    except DAMAGE as error:
        why = clean(str(error))[:200]
        raise RecordError(f"{path} is no record: expected what mnist-fp8 measure -o writes ({why})") from error
