"""Installations whose measurement is arranged: what its process writes is, and no Transformer Engine runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.gate.names import reading
from mnist_fp8.gate.releases import staging
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import execution
from mnist_fp8.record.entries import Signature
from mnist_fp8.record.names import Definition, Names

RELEASE = Edition(EditionKind.RELEASE, "2.3.0", "2.3.0")
NAMES = Names(
    {
        "transformer_engine": Definition(Signature("module")),
        "transformer_engine.f": Definition(Signature("function")),
        "transformer_engine.g": Definition(Signature("class")),
    },
    {},
    frozenset(("transformer_engine.f", "transformer_engine.g")),
    {},
)
MEASURED = {
    "run": "host",
    "environment": {"jax": "0.10.2"},
    "imported": {"transformer_engine": "/te/__init__.py", "mnist_fp8": "/stage/mnist_fp8/__init__.py"},
    "entries": {"bits/R/t": {"kind": "text", "text": "1"}},
    "seconds": 1.0,
}


def environment(edition: Edition = RELEASE, digest: str = "d") -> Environment:
    return Environment(
        edition, Path("/python"), "0.10.2", "0.12.8", digest, {"PYTHONPATH": str(staging.stage())}, Path("/te")
    )


def arrange_measurements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Arrange what a measurement ends with, and keep the arguments of each that is made.

    Returns:
        ``ended``: how the process of the next measurement ends; ``measured``: what it writes, if anything; both to be
        set by the test. ``made``: the keys of each.
    """
    ended = Ended(0, "a banner", "", 1.0, timed_out=False)
    arranged: dict[str, Any] = {"ended": ended, "measured": MEASURED, "made": []}

    def run(_where: Environment, command: Sequence[str], *_: Any) -> tuple[Ended, str]:
        file, *keys = command[3:]
        arranged["made"].append(keys)
        ended = arranged["ended"]
        if arranged["measured"]:
            Path(file).write_text(json.dumps(arranged["measured"]))
        return ended, f"{ended.out}\n{ended.err}"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(execution, "run", run)
    monkeypatch.setattr(staging, "stage", lambda: Path("/stage"))
    monkeypatch.setattr(staging, "measuring_digest", lambda: "m")
    monkeypatch.setattr(reading, "read_names", lambda _package: NAMES)
    return arranged
