"""What the tests of uses share."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Writes sources by their paths below a folder, and gives the folder."""

    def write(sources: dict[str, str]) -> Path:
        for name, source in sources.items():
            file = tmp_path / "code" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(source))
        return tmp_path / "code"

    return write
