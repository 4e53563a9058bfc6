"""The facts that stand in every report."""

import os
import platform
import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import pytest

from mnist_fp8 import te
from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.core.modes import Precision
from mnist_fp8.core.xla_flags import FLOAT32_SUMS
from mnist_fp8.te import loading, provenance, xla_products
from mnist_fp8.te.xla_products import Sums

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def test_facts_come_in_the_order_to_print_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(loading, "why_no_gpu", lambda: "")
    cpu = ["processor", "XLA products"] if jax.default_backend() == "cpu" else []
    expected = ["run", "transformer-engine", *PACKAGES, "python", "device", *cpu, "platform", "mnist-fp8"]
    assert list(provenance.describe(Precision.FLAX_BF16)) == expected


def test_reason_for_not_using_a_gpu_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "why_no_gpu", lambda: "no NVIDIA driver")
    assert provenance.describe(Precision.FLAX_BF16)["gpu"] == "none used: no NVIDIA driver"


def test_versions_are_those_installed() -> None:
    facts = provenance.describe()
    for package in (*PACKAGES, "transformer-engine", "mnist-fp8"):
        assert facts[package] == metadata.version(package), package
    assert facts["python"] == platform.python_version()


@pytest.mark.parametrize("precision", [None, Precision.TE_BF16, Precision.TE_FP8], ids=["tests", "te-bf16", "te-fp8"])
def test_kind_of_run_is_said_where_transformer_engine_is_involved(precision: Precision | None) -> None:
    assert provenance.describe(precision)["run"] == te.engine().description


def test_run_of_flax_alone_does_not_load_transformer_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> te.Engine:
        raise TeUnavailableError("it was loaded")

    monkeypatch.setattr(loading, "engine", fail)
    run = provenance.describe(Precision.FLAX_BF16)["run"]
    assert run == "Flax only: Transformer Engine is not involved"
    with pytest.raises(TeUnavailableError):
        provenance.describe(Precision.TE_BF16)  # Control: it would be


def test_variables_that_change_a_result_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"NVTE_FOO": "1", "XLA_FLAGS": "--a=[b]", "JAX_PLATFORMS": "cpu", "FLAX_PROFILE": "0", "CUDA_HOME": "/x"}
    monkeypatch.setattr(os, "environ", {"HOME": "/", "TOKEN": "secret", **ours})
    facts = provenance.describe()
    assert {name: facts[name] for name in ours} == ours
    assert list(facts)[-5:] == sorted(ours)
    assert not {"HOME", "TOKEN"} & set(facts)


def test_flags_that_we_set_are_told_from_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": f"{FLOAT32_SUMS} --mine"})
    facts = provenance.describe(Precision.FLAX_BF16)
    assert facts["XLA flags set here"] == FLOAT32_SUMS
    assert facts["XLA_FLAGS"] == f"{FLOAT32_SUMS} --mine"


@pytest.mark.host
def test_how_xla_sums_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Sums("x @ kernel", 2.6e-2, 2.5e-3)
    monkeypatch.setattr(xla_products, "sums", lambda: wrong)
    assert provenance.describe(Precision.FLAX_BF16)["XLA products"] == str(wrong)


def test_origins_are_files_or_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, without = ModuleType("of_a_folder"), ModuleType("without")
    folder.__path__ = ["/x/of_a_folder"]
    odd: Any = SimpleNamespace(__file__="/odd.py")
    for name, module in {"of_a_folder": folder, "without": without, "odd": odd, "gone": None}.items():
        monkeypatch.setitem(sys.modules, name, module)
    found = provenance.origins()
    assert found["of_a_folder"] == "/x/of_a_folder"
    assert found["transformer_engine.jax"] == te.engine().module.__file__
    assert found["jax"] == jax.__file__
    assert not {"without", "odd", "gone", "sys", "__main__", "jax.numpy"} & set(found)


def test_devices_are_counted_and_named() -> None:
    devices = jax.devices()
    assert provenance.describe_devices().startswith(f"{len(devices)} x {devices[0].device_kind}")


@pytest.mark.parametrize(
    ("device", "described"),
    [
        (SimpleNamespace(device_kind="cpu"), "2 x cpu"),
        (
            SimpleNamespace(device_kind="NVIDIA H100", compute_capability="9.0"),
            "2 x NVIDIA H100 (compute capability 9.0)",
        ),
    ],
    ids=["CPU", "GPU"],
)
def test_compute_capability_is_said_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, device: SimpleNamespace, described: str
) -> None:
    monkeypatch.setattr(provenance, "jax", SimpleNamespace(devices=lambda: [device, device]))
    assert provenance.describe_devices() == described
