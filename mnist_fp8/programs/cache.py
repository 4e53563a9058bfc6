"""Compiled programs, kept from run to run: most of the suite's time, and of a measurement's, is compilation."""

import contextlib
import shutil
import warnings
from pathlib import Path

from mnist_fp8.core.files import cache_dir

LARGEST_BYTES = 256 * 2**20
"""Compiled programs that are kept; beyond that, they start over. A run of all claims makes 40 MB."""


def keep_programs(*, is_worker: bool = False) -> None:
    """Keep the programs that JAX compiles from now on, unless the user has set a folder for them.

    JAX could limit the folder itself, but then reads all of it whenever it adds a program.

    Args:
        is_worker: another process of the same run looks after the folder's size.
    """
    import jax  # noqa: PLC0415 - half a second
    from jax.experimental.compilation_cache import compilation_cache  # noqa: PLC0415

    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache_dir() / "xla"
    if not is_worker and _bytes_in(folder) > LARGEST_BYTES:
        shutil.rmtree(folder, ignore_errors=True)
    # Another process may just be writing a program that is read, or may have removed the folder: it is compiled then.
    warnings.filterwarnings("ignore", "Error (?:reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # JAX looks once, at its first compilation, whether there is a cache


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):  # another process may be removing them
            total += file.stat().st_size
    return total
