"""Facts: all are there, one that cannot be had says why, and they show what differs."""

import json

import pytest

from mnist_fp8 import facts as facts_
from mnist_fp8 import te
from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.te import loading
from support.subprocesses import run_code


@pytest.fixture(scope="module")
def facts() -> dict[str, str]:
    return facts_.all_facts()


@pytest.mark.host
def test_every_fact_of_the_installed_release_can_be_had(facts: dict[str, str]) -> None:
    failed = {name: value for name, value in facts.items() if "Error" in value}
    assert not failed


@pytest.mark.host
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FP8 metadata", "grad_amax_history[4], grad_scale[1], kernel_amax_history[4], kernel_scale[1], x_amax"),
        ("stored scales after amaxes 1, 2, 4, 0.5", "[448.0, 224.0, 112.0, 112.0]"),
        ("stored history after amaxes 1, 2, 4, 0.5", "[0.0, 2.0, 4.0, 0.5]"),
        ("output of a float32 layer for BF16", "bfloat16"),
        ("kernel over axes of 4 and 8", "(4, 8, 16)"),
        ("recipe in force", "its own"),
        ("autocast after one inside it", "goes on"),
    ],
)
def test_fact_is_what_the_installed_release_does(facts: dict[str, str], name: str, value: str) -> None:
    assert facts[name].startswith(value)


@pytest.mark.host
def test_errors_are_those_of_the_formats(facts: dict[str, str]) -> None:
    """Output, input gradient, kernel gradient: two E4M3 operands, and one of each format for the gradients."""
    output, *gradients = (float(error) for error in facts["errors, DelayedScaling"].split(", "))
    assert 0.03 < output < 0.045
    assert all(0.05 < error < 0.07 for error in gradients)
    assert all(float(error) < 0.003 for error in facts["errors, BF16"].split(", ")), "Control: BF16"


def test_fact_that_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> object:
        raise ValueError("no such thing\nand more")

    monkeypatch.setattr(facts_, "_FACTS", {"good": lambda: 1, "bad": broken})
    assert facts_.all_facts() == {"good": "1", "bad": "ValueError: no such thing"}


def test_command_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(facts_, "_FACTS", {"good": lambda: 1})
    facts_.main()
    assert json.loads(capsys.readouterr().out) == {"good": "1"}


def test_without_transformer_engine_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise TeUnavailableError("none is installed")

    monkeypatch.setattr(loading, "engine", fail)
    with pytest.raises(SystemExit, match=r"^nothing can be measured: none is installed$"):
        facts_.main()


def test_importing_it_loads_no_transformer_engine() -> None:
    code = "import sys\nimport mnist_fp8.facts\nprint('transformer_engine' in sys.modules)"
    assert run_code(code).strip() == "False"


# --- the smoke program -----------------------------------------------------------------------------------------------


def test_healthy_installation_passes_the_smoke_program() -> None:
    facts_.smoke()


def test_smoke_program_sees_a_layer_that_is_not_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_, "_DELAYED", te.Autocast())
    with pytest.raises(AssertionError, match="not quantized to float8"):
        facts_.smoke()
