"""Note a new release: the digests of its files, by which it is recognised, and its names.

``python -m mnist_fp8.gate.names.noting 2.19.0`` downloads releases, all known ones if none is named, and writes
``gate/releases/releases.json`` and ``gate/names/names.json.xz``.
"""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.version import Version

from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.gate.names.stored import NAMES_FILE, all_names, store_names
from mnist_fp8.gate.releases import catalogue, uv
from mnist_fp8.gate.releases.catalogue import RELEASES_FILE
from mnist_fp8.record.names import PACKAGE


def note_releases(versions: Sequence[str]) -> None:
    """Download releases and write what is known of them.

    Raises:
        EnvError: one cannot be downloaded.
        ConfigError: one cannot be read.
    """
    digests = json.loads(RELEASES_FILE.read_text())
    names = all_names() if NAMES_FILE.exists() else {}
    for version in versions or catalogue.releases():
        with downloaded(version) as package:
            digests[version] = catalogue.file_digests(package)
            names[version] = read_names(package)
    ordered = {version: digests[version] for version in sorted(digests, key=Version)}
    RELEASES_FILE.write_text(json.dumps(ordered, indent=1) + "\n")
    store_names(NAMES_FILE, {version: names[version] for version in sorted(names, key=Version)})


@contextlib.contextmanager
def downloaded(version: str) -> Iterator[Path]:
    """The folder ``transformer_engine`` of a release, for as long as it is looked at.

    Raises:
        EnvError: it cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        release = f"{catalogue.DISTRIBUTION}=={version}"
        arguments = ("--target", folder, "--python", sys.executable, "--no-deps", "--no-build")
        uv.run("pip", "install", *arguments, release, what=f"the files of {release}")
        yield Path(folder) / PACKAGE


if __name__ == "__main__":
    note_releases(sys.argv[1:])
