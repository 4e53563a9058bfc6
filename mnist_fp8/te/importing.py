"""What an import of Transformer Engine does to its process: ``python -m mnist_fp8.te.importing FILE`` writes it there.

JAX and Flax, which Transformer Engine imports itself, are imported before. What is left is Transformer Engine's own
doing. It takes a process of its own: in any other one, packages that a test or a tool has imported would hide it.
"""

import builtins
import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import IO, Any

from packaging.utils import canonicalize_name

from mnist_fp8.core.files import replace_file
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.machine import packages
from mnist_fp8.record.entries import Cost, Text, Value
from mnist_fp8.record.entries_json import entries_to_json
from mnist_fp8.record.packages import Imported
from mnist_fp8.te import host, loading, process_state

_IMPORTED_BEFORE = ("flax.linen", "flax.nnx", "optax", "jax.numpy", "jax.experimental.custom_partitioning")
"""What an import could change. Flax asks for optax."""
_PACKAGE = "transformer_engine"
_ASKED_FOR = ("transformer-engine", "transformer-engine-jax", "jax", "flax")
"""``transformer-engine-jax``, which is only there on kernels, asks for the other two in all releases."""
_LINES = 20


def effects() -> dict[str, Value]:
    """Import Transformer Engine, and say what is not as it was.

    Raises:
        TeUnavailableError: it does not import.
    """
    for name in _IMPORTED_BEFORE:
        import_module(name)
    kind = loading.kind_of_run()
    loading.prepare_xla()
    os.environ.update(host.CUSTOM_CALLS_OFF if kind is RunKind.HOST else {})
    process_state.handle_signals_as_in_a_terminal()
    vars(warnings)["showwarning"] = _say_nothing  # warnings are measured elsewhere
    with _caught_output() as output:
        before, modules, memory = process_state.state(), set(sys.modules), _memory()
        begin = time.perf_counter()
        with _asked_for() as direct:
            module = loading.import_te(kind)
        costs = {"time": Cost((time.perf_counter() - begin,), "s"), "memory": Cost((_memory() - memory,), "bytes")}
        after = process_state.state()
    folder = Path(str(module.__file__)).parents[1]
    found = {f"import/{kind}/{name}": text for kind, name, text in process_state.changes(before, after)}
    found |= {f"import/output/{name}": text for name, text in output.items() if text}
    entries: dict[str, Value] = {_placed(key, folder): Text(_placed(text, folder)) for key, text in found.items()}
    loaded = {name.partition(".")[0] for name in set(sys.modules) - modules}
    entries |= {f"import/packages/{name}": value for name, value in _packages(direct, loaded, folder).items()}
    return entries | {f"costs/import/{name}": value for name, value in costs.items()}


def _say_nothing(*_args: object, **_kwargs: object) -> None:
    pass


def _placed(text: str, folder: Path) -> str:
    """Text without the place of the release, which is another one for each."""
    return text.replace(str(folder.parent), "(site-packages)")


def _memory() -> float:
    """Bytes that the process has in memory; none where the system does not say."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE")) if file.exists() else 0.0


@contextlib.contextmanager
def _caught_output() -> Iterator[dict[str, str]]:
    """What anything prints, C libraries included, by the name of the stream; filled in at the end."""
    texts: dict[str, str] = {}
    with contextlib.ExitStack() as files:
        streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        caught = {name: files.enter_context(tempfile.TemporaryFile()) for name in streams}
        kept = {name: os.dup(number) for number, name in enumerate(streams, 1)}
        for number, (name, stream) in enumerate(streams.items(), 1):
            stream.flush()
            os.dup2(caught[name].fileno(), number)
        try:
            yield texts
        finally:
            for number, (name, stream) in enumerate(streams.items(), 1):
                stream.flush()
                os.dup2(kept[name], number)
                os.close(kept[name])
                texts[name] = _read(caught[name])


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return "\n".join(lines[:_LINES])


# --- packages ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _asked_for() -> Iterator[set[str]]:
    """The packages that import statements of Transformer Engine name, whether they were there already or not."""
    names: set[str] = set()
    original = builtins.__import__

    def note(name: str, where: Any = None, _locals: Any = None, parts: Any = (), level: int = 0) -> Any:  # noqa: ANN401
        found = original(name, where, _locals, parts, level)
        if not level and str((where or {}).get("__name__", "")).startswith(_PACKAGE):
            names.add(name.partition(".")[0])
        return found

    vars(builtins)["__import__"] = note
    try:
        yield names
    finally:
        if builtins.__import__ is note:
            vars(builtins)["__import__"] = original


def _packages(direct: Iterable[str], loaded: Iterable[str], folder: Path) -> dict[str, Imported]:
    """Installed packages that Transformer Engine imports, and whether what it asks for brings them.

    Args:
        direct: modules that it names itself.
        loaded: all modules that were imported with it.
        folder: its own.
    """
    owners = {name: set(own) for name, own in metadata.packages_distributions().items()}
    used, others = (
        # Of a name that several share, such as nvidia, it cannot be said whose it is.
        {str(canonicalize_name(next(iter(owners[name])) if len(owners[name]) == 1 else name))
         for name in names if name in owners and not name.startswith(_PACKAGE)}
        for names in (direct, loaded)
    )  # fmt: skip
    brought = _reached(_ASKED_FOR)
    unknown = False if _has_metadata(folder) else None
    names = sorted(used | others - brought - _reached(used))
    return {name: Imported(declared=True if name in brought else unknown) for name in names}


def _reached(names: Iterable[str]) -> set[str]:
    """Installed packages of those names, and what they need."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        new = packages.installed(waiting)
        found |= new.keys()
        waiting = {name for package in new.values() for name in package.bounds()} - found
    return found


def _has_metadata(folder: Path) -> bool:
    """Whether the metadata that are installed are those of the package, and not of a folder's stand-in."""
    try:
        place = metadata.distribution("transformer-engine").locate_file("")
    except metadata.PackageNotFoundError:
        return False
    return Path(str(place)).resolve() == folder.parent.resolve()


if __name__ == "__main__":
    replace_file(Path(sys.argv[1]), json.dumps(entries_to_json(effects())).encode())
