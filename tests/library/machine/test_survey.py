"""What a machine is found to have: with stand-ins for a driver, wheels and libraries."""

import ctypes
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.machine import driver, libraries, packages, survey
from mnist_fp8.machine.driver import Driver, Gpu
from mnist_fp8.machine.libraries import Library
from mnist_fp8.machine.packages import Package
from support.subprocesses import run_code

H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0))


# --- packages ------------------------------------------------------------------------------------------------------


def test_packages_are_those_installed() -> None:
    found = packages.find_packages()
    for name in ("jax", "jaxlib", "flax", "transformer-engine"):
        assert found[name].version == metadata.version(name), name
    assert found["jax"].python == metadata.metadata("jax")["Requires-Python"]
    assert found["jax"].needs("jaxlib")


def test_first_package_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for an import."""
    folder = tmp_path / "jax_cuda13_plugin-1.2.3.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: jax-cuda13-plugin\nVersion: 1.2.3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert packages.find_packages()["jax-cuda13-plugin"] == Package("1.2.3")


@pytest.mark.parametrize(
    ("name", "extra", "needed"),
    [
        ("jaxlib", "", "<=0.10.2,>=0.10.1"),
        ("nvidia-cudnn-cu13", "with-cuda", "<10.0,>=9.12"),
        ("nvidia-cudnn-cu13", "", ""),
        ("numpy", "", ""),
        ("other", "", ""),
    ],
    ids=["plain", "of an extra", "extra not asked for", "of another Python", "none"],
)
def test_needs_are_read_from_requirements(name: str, extra: str, needed: str) -> None:
    requires = (
        "no requirement at all",
        "jaxlib<=0.10.2,>=0.10.1",
        'nvidia_cudnn_cu13<10.0,>=9.12; extra == "with-cuda"',
        'numpy>=9; python_version < "3"',
    )
    assert Package("1", requires=requires).needs(name, extra) == needed


# --- driver --------------------------------------------------------------------------------------------------------


class FakeDriver:
    """Answers as libcuda does, by writing where it is told to."""

    def __init__(self, version: int, gpus: list[Gpu], init: int = 0, names: dict[int, bytes] | None = None) -> None:
        self._version, self._gpus, self._init, self._names = version, gpus, init, names or {}

    def cuDriverGetVersion(self, where: Any) -> int:  # noqa: N802
        where._obj.value = self._version
        return 0

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return self._init

    def cuDeviceGetCount(self, where: Any) -> int:  # noqa: N802
        where._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, where: Any, index: int) -> int:  # noqa: N802
        where._obj.value = index
        return 0

    def cuDeviceGetName(self, where: Any, _length: int, device: Any) -> int:  # noqa: N802
        where.value = self._gpus[device.value].name.encode()
        return 0

    def cuDeviceGetAttribute(self, where: Any, attribute: int, device: Any) -> int:  # noqa: N802
        where._obj.value = self._gpus[device.value].capability[{75: 0, 76: 1}[attribute]]
        return 0

    def cuGetErrorName(self, code: int, where: Any) -> int:  # noqa: N802
        where._obj.value = self._names.get(code)
        return 0


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        (FakeDriver(13000, [H100, H100]), Driver((13, 0), (H100, H100))),
        (FakeDriver(12100, [Gpu("A100", (8, 0))]), Driver((12, 10), (Gpu("A100", (8, 0)),))),
        (
            FakeDriver(12040, [], 100, {100: b"CUDA_ERROR_NO_DEVICE"}),
            Driver((12, 4), error="no GPU (CUDA_ERROR_NO_DEVICE)"),
        ),
        (FakeDriver(12040, [], 4711), Driver((12, 4), error="no GPU (error 4711)")),
    ],
    ids=["two GPUs", "other CUDA", "no GPU", "nameless error"],
)
def test_driver_is_asked_itself(monkeypatch: pytest.MonkeyPatch, library: FakeDriver, expected: Driver) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    assert driver.find_driver() == expected


def test_no_driver_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert driver.find_driver() == Driver(error="no NVIDIA driver (libcuda.so.1)")


# --- libraries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["transformer_engine/wheel_lib", "transformer_engine", "."])
def test_libraries_of_te_are_found_in_and_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    path = tmp_path / folder / "libtransformer_engine.so"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    spec = SimpleNamespace(origin=str(tmp_path / "transformer_engine" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    assert libraries.find_te_libraries("libtransformer_engine") == (Library(path),)
    assert libraries.find_te_libraries("transformer_engine_jax") == ()


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)], ids=["no package", "namespace package"])
def test_without_te_there_are_no_libraries(monkeypatch: pytest.MonkeyPatch, spec: SimpleNamespace | None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    assert libraries.find_te_libraries("libtransformer_engine") == ()


def test_what_a_library_asks_for_is_what_the_loader_maps() -> None:
    """Held against the loader: all that a compiled module asks for is there once it is imported."""
    code = """
        import jaxlib._jax
        print(jaxlib._jax.__file__)
        print(open("/proc/self/maps").read())
    """
    path, _, mapped = run_code(code).partition("\n")
    needed = libraries.needed_libraries(Path(path))
    assert "libc.so.6" in needed
    assert not [name for name in needed if f"/{name}" not in mapped]


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" + bytes(200)])
def test_what_is_no_library_asks_for_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.so").write_bytes(content)
    assert libraries.needed_libraries(tmp_path / "x.so") == ()
    assert libraries.needed_libraries(tmp_path / "missing.so") == ()


def test_folders_of_the_loader_are_read_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "b.conf").write_text("/b\n")
    (tmp_path / "parts" / "a.conf").write_text("/a  # why\n\n")
    (tmp_path / "parts" / "c.txt").write_text("/c\n")
    (tmp_path / "ld.so.conf").write_text("# comment\n/first\ninclude parts/*.conf missing/*\n")
    found = list(libraries.configured_folders(tmp_path / "ld.so.conf"))
    assert found == [Path("/first"), Path("/a"), Path("/b")]
    assert list(libraries.configured_folders(tmp_path / "missing")) == []


# --- all of it -----------------------------------------------------------------------------------------------------


def test_all_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cuda" / "lib64").mkdir(parents=True)
    (tmp_path / "site" / "nvidia" / "nccl" / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    found = survey.look(
        {
            "MNIST_FP8_TE": "host",
            "JAX_PLATFORMS": "cpu",
            "LD_LIBRARY_PATH": f"{tmp_path}::/other",
            "CUDA_HOME": str(tmp_path / "cuda"),
        }
    )
    assert (found.requested, found.platforms) == (RunKind.HOST, "cpu")
    assert found.library_path == (tmp_path, Path("/other"))
    assert found.homes[0] == tmp_path / "cuda" / "lib64"
    assert tmp_path / "site" / "nvidia" / "nccl" / "lib" in found.wheels
    assert Path("/usr/lib") in found.system
    assert found.suffixes[0].endswith(".so")


def test_an_unknown_kind_of_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="MNIST_FP8_TE is 'cuda'"):
        survey.look({"MNIST_FP8_TE": "cuda"})


def test_looking_imports_neither_jax_nor_transformer_engine() -> None:
    code = """
        import sys
        from mnist_fp8.doctor import checks
        checks.first_problem()
        print([name for name in ("jax", "flax", "numpy", "transformer_engine") if name in sys.modules])
    """
    assert run_code(code).strip() == "[]"
