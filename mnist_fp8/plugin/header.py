"""The header of a run: what runs, in which kind of run, with which versions, on which device."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from mnist_fp8 import te
from mnist_fp8.core.files import replace_file
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.te import provenance


def lines() -> list[str]:
    """The header as a person reads it."""
    return [f"{name}: {value}" for name, value in facts().items()]


def write(file: Path) -> None:
    """Write the header as a program reads it: ``{"run": "host run: ...", "environment": {"jax": "0.10.2", ...}}``."""
    environment = facts()
    run = environment.pop("run")
    document = {"run": run, "environment": environment, "imported": provenance.origins()}
    file.write_text(json.dumps(document, indent=2))


def write_of_worker(file: Path, worker: str, items: Iterable[pytest.Item], spared: Iterable[pytest.Item]) -> None:
    """Write what a worker imported, the tests that it collected with their subjects, and which of them it will not run.

    The file lies beside that of the header.
    """
    collected = list(items)
    subjects = {item.nodeid: mark.args[0] for item in collected for mark in item.iter_markers("subject")}
    tests = [item.nodeid for item in collected]
    document = {
        "imported": provenance.origins(),
        "tests": tests,
        "spared": [item.nodeid for item in spared],
        "subjects": subjects,
    }
    replace_file(file.with_name(f"{file.stem}-{worker}.json"), json.dumps(document).encode())


def facts() -> dict[str, str]:
    """What runs, by name and in the order to print it.

    Raises:
        TeUnavailableError: Transformer Engine cannot run.
    """
    return provenance.describe() | _describe_model() | describe_recipes()


def _describe_model() -> dict[str, str]:
    """The user's model that is held to the claims on models, if there is one."""
    name = os.environ.get(VARIABLE)
    return {"model": name} if name else {}


def describe_recipes() -> dict[str, str]:
    """Which recipes this machine supports. A TE that cannot even say so is for the claims to judge, not the header."""
    try:
        recipes = te.support_by_recipe()
    except Exception as error:  # noqa: BLE001 - whatever a broken TE raises
        return {"recipes": f"Transformer Engine cannot be asked: {type(error).__name__}: {error}"}
    return {
        "recipes": ", ".join(name for name, support in recipes.items() if support.ok) or "none",
        **{f"not {name}": support.reason for name, support in recipes.items() if not support.ok},
    }
