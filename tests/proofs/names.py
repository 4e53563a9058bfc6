"""What is stored of all known releases, held to their wheels: the digests of their files, and their names.

``PYTHONPATH=.:tests python -m proofs.names [VERSION ...]`` downloads them and prints a line for each. It exits with 1
if one differs.
"""

import sys
from collections.abc import Sequence

from mnist_fp8.gate.names.noting import downloaded
from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.gate.names.stored import stored_names
from mnist_fp8.gate.releases import catalogue


def main(versions: Sequence[str]) -> int:
    """Compare releases, all known ones if none is named; returns the exit code."""
    different = [version for version in versions or catalogue.releases() if not _is_as_stored(version)]
    print(f"{', '.join(different) or 'no release'} differs from what is stored")
    return bool(different)


def _is_as_stored(version: str) -> bool:
    with downloaded(version) as package:
        same = {
            "files": catalogue.file_digests(package) == catalogue.known_digests()[version],
            "names": read_names(package) == stored_names(version),
        }
    answers = (f"{what} {'as stored' if answer else 'DIFFER'}" for what, answer in same.items())
    print(f"{version:12} {', '.join(answers)}", flush=True)
    return all(same.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
