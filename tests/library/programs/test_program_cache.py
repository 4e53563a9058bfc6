"""Compiled programs are kept from one process to the next, unless somebody else sees to it."""

from pathlib import Path

from support.subprocesses import run_code

COMPILE = """
    import os
    from mnist_fp8.programs.cache import keep_programs
    import jax
    jax.jit(lambda x: x + 1)(1.0)  # JAX looks for a cache when it compiles for the first time
    keep_programs(is_worker=IS_WORKER)
    jax.jit(lambda x: jax.numpy.sin(x) * 3)(2.0)
    print(jax.config.values["jax_compilation_cache_dir"])
"""


def compile_with(folder: Path, *, is_worker: bool = False, **variables: str) -> str:
    code = COMPILE.replace("IS_WORKER", str(is_worker))
    return run_code(code, variables={"XDG_CACHE_HOME": str(folder), "JAX_PLATFORMS": "cpu"} | variables).strip()


def test_programs_are_kept_in_the_cache_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mnist_fp8" / "xla"
    assert compile_with(tmp_path) == str(folder)
    kept = {file.name for file in folder.iterdir()}
    assert any("jit" in name for name in kept)
    compile_with(tmp_path)
    assert {file.name for file in folder.iterdir()} == kept, "the second process finds what it needs"


def test_folder_of_the_user_is_used(tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert compile_with(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own)) == str(own)
    assert not (tmp_path / "mnist_fp8").exists()


def test_folder_that_grew_too_large_starts_over(tmp_path: Path) -> None:
    folder = tmp_path / "mnist_fp8" / "xla"
    folder.mkdir(parents=True)
    with (folder / "old").open("wb") as old:
        old.truncate(257 * 2**20)
    compile_with(tmp_path, is_worker=True)
    assert (folder / "old").exists(), "Control: a worker leaves that to its master"
    compile_with(tmp_path)
    assert not (folder / "old").exists()
