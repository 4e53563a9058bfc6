"""Lint is the same everywhere: for tox, for pre-commit and for whoever installs the extra ``lint``."""

import configparser
import tomllib

import yaml

from support.subprocesses import ROOT

TOX = configparser.RawConfigParser()
TOX.read(ROOT / "tox.ini")
LINT = TOX["testenv:lint"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]


def lines(value: str) -> list[str]:
    """The lines of a setting of tox."""
    return [line for line in value.splitlines() if line]


def test_hooks_run_the_commands_of_tox() -> None:
    assert [hook["entry"] for hook in HOOKS] == lines(LINT["commands"])


def test_hooks_and_tox_install_the_same_tools() -> None:
    assert {tool for hook in HOOKS for tool in hook["additional_dependencies"]} == set(lines(LINT["deps"]))


def test_extra_has_the_tools_of_tox() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["lint"]
    assert set(lines(LINT["deps"])) <= set(extra)
