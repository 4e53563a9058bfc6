"""What a Python interpreter has installed, asked in a process of its own."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from mnist_fp8.core.errors import EnvError
from mnist_fp8.core.files import digest_of
from mnist_fp8.gate.releases.catalogue import file_digests
from mnist_fp8.gate.releases.processes import execute, explained

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
    """

    package: Path | None
    distributions: Mapping[str, str]
    requires: Mapping[str, Sequence[str]]
    base: str
    sites: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of Transformer Engine's Python and the versions of all packages."""
        return digest_of({"te": file_digests(self.package) if self.package else {}, "packages": self.distributions})


_PROBE = """
import importlib.util, json, site, sys
from importlib import metadata
spec = importlib.util.find_spec("transformer_engine")
found, requires = {}, {}
for one in metadata.distributions():
    name = one.metadata["Name"] or ""
    found.setdefault(name, one.version)
    requires.setdefault(name, one.requires or [])
print(json.dumps({
    "package": list(spec.submodule_search_locations or [None])[0] if spec else None,
    "distributions": found,
    "requires": requires,
    "base": getattr(sys, "_base_executable", sys.executable),
    "sites": site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
    "version": list(sys.version_info[:2]),
}))
"""


def probe(python: Path) -> Facts:
    """Ask an interpreter, without importing Transformer Engine or JAX."""
    with explained(f"python {python}"), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe.py").write_text(_PROBE)
        command = [str(python), "probe.py"]
        ended = execute(command, cwd=Path(folder), timeout=_PROBE_TIMEOUT_S, environ=os.environ)
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
    package = Path(found["package"]) if found["package"] else None
    return Facts(package, distributions, requires, found["base"], tuple(found["sites"]))
