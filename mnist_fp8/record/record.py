"""What was measured of one Transformer Engine: pure records, and their JSON.

A record is a flat collection of entries by key. A key reads ``area/subject/what``, such as
``numerics/DelayedScaling/output against float64``; areas are listed in `AREAS`. What differs between two records is
found by `compare`, entry by entry.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from mnist_fp8.core.errors import RecordError
from mnist_fp8.record.claims import SuiteResult
from mnist_fp8.record.entries import Value, entries_from_json, entries_to_json

SCHEMA_VERSION = 1
"""Of stored records; raised when an entry changes its meaning."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One Transformer Engine, measured.

    Attributes:
        te: what was measured, as a person reads it.
        version: of Transformer Engine.
        run: ``kernel`` or ``host``; empty if it did not come that far.
        environment: versions, device and kind of run, by name.
        settings: digest of the code that measured; records of different settings do not hold the same entries.
        arguments: command-line words that name this installation.
        entries: what was measured, by key.
        seconds: how long it took.
        problem: why nothing could be measured, in Transformer Engine's words and one line; empty if it could.
        suite: how the suite judged the same installation; ``None`` if it was not asked.
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

    @property
    def name(self) -> str:
        """What was measured, with its version."""
        return self.te if self.version in self.te else f"{self.version} ({self.te})"

    @property
    def title(self) -> str:
        """What was measured and what it ran with, in one line."""
        names = ("jax", "flax", "python")
        parts = [
            f"{name.upper() if name == 'jax' else name.title()} {self.environment[name]}"
            for name in names
            if name in self.environment
        ]
        return f"TE {self.name} ({', '.join(parts)})" if parts else f"TE {self.name}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the version of its schema."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            "schema_version": SCHEMA_VERSION,
            **fields,
            "environment": dict(self.environment),
            "arguments": list(self.arguments),
            "entries": entries_to_json(self.entries),
            "suite": self.suite and self.suite.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            RecordError: it is of another version, or no record.
        """
        version = document.get("schema_version")
        if version != SCHEMA_VERSION or "entries" not in document:
            raise RecordError(f"schema version {version}, but this mnist-fp8 reads {SCHEMA_VERSION}: measure it again")
        fields = {name: value for name, value in document.items() if name != "schema_version"}
        suite = fields["suite"] and SuiteResult.from_json(fields["suite"])
        entries = entries_from_json(fields["entries"])
        return cls(**fields | {"suite": suite, "entries": entries, "arguments": tuple(fields["arguments"])})


def read_record(path: Path) -> Record:
    """Read a record from its file.

    Raises:
        RecordError: there is none, or it is something else; one line that says what to do.
    """
    try:
        return Record.from_json(json.loads(path.read_text()))
    except OSError as error:
        raise RecordError(f"record {path} cannot be read: {error.strerror}") from error
    except RecordError as error:
        raise RecordError(f"record {path} has {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is no record: expected what mnist-fp8 measure -o writes") from error
