"""Transformer Engines to read: tiny ones, written for one test, and the installed one."""

import importlib.util
import textwrap
from pathlib import Path

JAX = "transformer_engine.jax"


def package(folder: Path, files: dict[str, str]) -> Path:
    """Write a tiny Transformer Engine, with empty ``__init__.py`` where none is given."""
    root = folder / "transformer_engine"
    for name, code in {"jax/__init__.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code))
        for above in path.relative_to(root).parents:
            (root / above / "__init__.py").touch()
    return root


def installed() -> Path:
    """The Transformer Engine of this environment, found and not imported."""
    spec = importlib.util.find_spec("transformer_engine")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent
