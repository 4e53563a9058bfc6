"""Programs of a user: Transformer Engine can be imported at once, and is that of the environment."""

import importlib.util
from pathlib import Path

import pytest

from mnist_fp8.te import program
from support.subprocesses import run_python

PROGRAM = Path(program.__path__[0])
HOST = {"MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}
TE = str(importlib.util.find_spec("transformer_engine").submodule_search_locations[0])  # type: ignore[union-attr,index]
pytestmark = pytest.mark.host


def printed(folder: Path, code: str, **variables: str) -> list[str]:
    """What a program prints that lies in a folder with a package of Transformer Engine's name and one of JAX's."""
    for name in ("transformer_engine", "jax"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the one beside the program')")
    (folder / "sibling.py").write_text("NAME = 'sibling'")
    file = folder / "mine.py"
    file.write_text(code)
    return run_python(str(file), cwd=folder, first_on_path=PROGRAM, variables=HOST | variables).splitlines()


@pytest.mark.parametrize(
    "first",
    [
        "import transformer_engine.jax",
        "import transformer_engine",
        "from transformer_engine.common import recipe",
        "from mnist_fp8 import te; te.engine()",
        "import importlib.util; importlib.util.find_spec('transformer_engine')",
        "import jax; import transformer_engine.jax.flax",
    ],
)
def test_program_in_a_checkout_imports_the_environments(tmp_path: Path, first: str) -> None:
    code = f"""
{first}
import sibling
import transformer_engine.jax as te
import transformer_engine
from transformer_engine.jax.flax import DenseGeneral
from transformer_engine.common.recipe import DelayedScaling
import jax, jax.numpy as jnp
layer, x = DenseGeneral(features=32), jnp.ones((32, 64), jnp.bfloat16)
autocast = getattr(te, "autocast", None) or te.fp8_autocast
with autocast(True, DelayedScaling()):
    variables = layer.init(jax.random.key(0), x)
    print("f8" in str(jax.make_jaxpr(layer.apply)(variables, x)))
print(transformer_engine.__file__, sibling.NAME)
"""
    assert printed(tmp_path, code) == ["True", f"{TE}/__init__.py sibling"]


def test_program_without_transformer_engine_does_not_import_jax(tmp_path: Path) -> None:
    assert printed(tmp_path, "import sys; print('jax' in sys.modules)") == ["False"]


def test_transformer_engine_that_cannot_run_raises_an_import_error(tmp_path: Path) -> None:
    code = "try:\n    import transformer_engine\nexcept ImportError as error:\n    print(error)\n"
    (line,) = printed(tmp_path, code, MNIST_FP8_TE="kernel")
    assert line.startswith("MNIST_FP8_TE=kernel needs a GPU")
