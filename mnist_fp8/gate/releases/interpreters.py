"""What a Python interpreter has installed, asked in a process of its own."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from mnist_fp8.core.errors import EnvError
from mnist_fp8.gate.releases.processes import closed, execute, explained

_LEAST_PYTHON = (3, 11)
_PROBE_TIMEOUT_S = 60


@dataclass(frozen=True)
class Facts:
    """What an interpreter says of itself.

    Attributes:
        package: folder of ``transformer_engine``.
        distributions: version of each installed package, by its normalized name.
        requires: what each of them needs.
        base: the interpreter that virtual environments are made from.
        sites: its folders of installed packages.
        path: folders and archives where it looks for what is imported, without Python's own library.
        places: files or folders of packages that a run imports, wherever they are, and of all that are installed in
            editable mode by a finder of setuptools.
        python: version of Python and its compiler, in Python's words.
        device: the GPUs and the newest CUDA of their driver, in words; empty without one.
    """

    package: Path | None
    distributions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]]
    base: str
    sites: tuple[str, ...]
    path: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    python: str = ""
    device: str = ""


IMPORTED = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_dtypes", "pytest", "xdist", "hypothesis")
"""Packages on which a result rests, beside Transformer Engine."""
_AT_START = ("sitecustomize", "usercustomize")

_PROBE = """
import importlib.util, json, os, site, sys, sysconfig
from importlib import metadata
def place(name):
    spec = importlib.util.find_spec(name)
    return spec and (spec.origin or list(spec.submodule_search_locations or [None])[0])
spec = importlib.util.find_spec("transformer_engine")
found, requires = {}, {}
for one in metadata.distributions():
    name = one.metadata["Name"] or ""
    found.setdefault(name, one.version)
    requires.setdefault(name, one.requires or [])
own = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
own += [os.path.join(folder, "lib-dynload") for folder in own]
path = [place for place in sys.path if os.path.exists(place) and place not in own]
places = [file for file in map(place, sys.argv[2:]) if file]
finders = [vars(module) for name, module in sys.modules.items() if name.startswith("__editable__")]
places += sorted(place for finder in finders for place in finder.get("MAPPING", {}).values())
driver = None
if sys.argv[1] and sys.version_info >= (3, 11):
    sys.path.insert(0, sys.argv[1])
    from mnist_fp8.machine import driver
print(json.dumps({
    "package": list(spec.submodule_search_locations or [None])[0] if spec else None,
    "distributions": found,
    "requires": requires,
    "base": getattr(sys, "_base_executable", sys.executable),
    "sites": site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    "path": path,
    "places": places,
    "python": sys.version,
    "device": str(driver.find_driver()) if driver else "",
    "version": list(sys.version_info[:2]),
}))
"""


def users_path() -> str:
    """The folders of ``PYTHONPATH`` from anywhere: an interpreter of the user may need them."""
    folders = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join(str(Path(folder).absolute()) for folder in folders)


def probe(
    python: Path, *, pythonpath: str = "", stage: Path | None = None, imported: Sequence[str] = IMPORTED
) -> Facts:
    """Ask an interpreter, without importing Transformer Engine or JAX.

    Args:
        python: the interpreter.
        pythonpath: folders that are first on its path.
        stage: where the code is that asks for GPUs; ``None`` does not ask.
        imported: packages whose places are asked for.

    Raises:
        EnvError: it does not answer, or is too old.
    """
    with explained(f"python {python}"), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe.py").write_text(_PROBE)
        command = [str(python), "probe.py", str(stage or ""), *imported, *_AT_START]
        own = {"PYTHONDONTWRITEBYTECODE": "1"}  # nothing comes into the stage
        environ = closed(own | ({"PYTHONPATH": pythonpath} if pythonpath else {}))
        ended = execute(command, cwd=Path(folder), timeout=_PROBE_TIMEOUT_S, environ=environ)
    try:
        found = json.loads(ended.out)
        version = tuple(found["version"])
    except (ValueError, LookupError, TypeError):
        words = ended.err.strip().splitlines() or [f"exit code {ended.code}"]
        raise EnvError(f"python {python} does not answer as a Python 3 does: {words[-1]}") from None
    if version < _LEAST_PYTHON:
        raise EnvError(f"python {python} is Python {version[0]}.{version[1]}; the suite needs 3.11 or newer")
    distributions, requires = (
        {str(canonicalize_name(name)): value for name, value in found[what].items()}
        for what in ("distributions", "requires")
    )
    return Facts(
        package=Path(found["package"]) if found["package"] else None,
        distributions=distributions,
        requires=requires,
        base=found["base"],
        sites=tuple(found["sites"]),
        path=tuple(found["path"]),
        places=tuple(found["places"]),
        python=found["python"],
        device=found["device"],
    )
