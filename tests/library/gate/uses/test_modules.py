"""Names of Transformer Engine are followed through the user's own modules."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mnist_fp8.gate.uses import evaluation
from mnist_fp8.gate.uses.parsing import parse
from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.gate.uses.sources import Source

Write = Callable[[dict[str, str]], Path]
COMPAT = "from transformer_engine.jax.flax import DenseGeneral\n"


def found(folder: Path) -> list[str]:
    return [
        f"{Path(use.place.file).relative_to(folder)}:{use.place.line} {use.kind.name} "
        f"{use.path.removeprefix('transformer_engine.jax.')}"
        for use in find_uses([folder]).uses
        if "compat" not in use.place.file
    ]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("from lib.compat import DenseGeneral\nDenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("from .compat import DenseGeneral as Dense\nDense(1)", "2 CALL flax.DenseGeneral"),
        ("from . import compat\ncompat.DenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("from lib import compat\ncompat.DenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("import lib.compat\nlib.compat.DenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("import lib.compat as c\nc.DenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("from lib.compat import *\nDenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("from lib import DenseGeneral\nDenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        ("import importlib\nimportlib.import_module('lib.compat').DenseGeneral(1)", "2 CALL flax.DenseGeneral"),
        (
            "def f():\n    from lib.compat import (  # here\n        DenseGeneral,\n    )\n    DenseGeneral()",
            "5 CALL flax.DenseGeneral",
        ),
    ],
)
@pytest.mark.parametrize("root", ["lib", "src/lib"])
def test_a_name_that_the_user_exports_again_is_followed(write: Write, user: str, expected: str, root: str) -> None:
    sources = {"__init__.py": "from .compat import DenseGeneral", "compat.py": COMPAT, "user.py": user}
    folder = write({f"{root}/{name}": source for name, source in sources.items()})
    assert [line for line in found(folder) if "user" in line] == [f"{root}/user.py:{expected}"]


def test_a_package_may_have_no_init(write: Write) -> None:
    folder = write(
        {"lib/nn/compat.py": COMPAT, "lib/user.py": "from lib.nn.compat import DenseGeneral\nDenseGeneral()"}
    )
    assert found(folder) == ["lib/user.py:2 CALL flax.DenseGeneral"]


def test_a_script_finds_the_modules_beside_it(write: Write) -> None:
    folder = write({"one/compat.py": COMPAT, "one/user.py": "import compat\ncompat.DenseGeneral()"})
    assert found(folder) == ["one/user.py:2 CALL flax.DenseGeneral"]


def test_of_modules_with_one_name_the_nearest_is_meant(write: Write) -> None:
    user = "from compat import DenseGeneral\nDenseGeneral()"
    folder = write({"one/compat.py": COMPAT, "one/a.py": user, "two/compat.py": "DenseGeneral = 1", "two/b.py": user})
    assert found(folder) == ["one/a.py:2 CALL flax.DenseGeneral"]


def test_a_package_can_be_given_itself(write: Write) -> None:
    folder = write(
        {"lib/__init__.py": "", "lib/compat.py": COMPAT, "lib/user.py": "from lib.compat import *\nDenseGeneral()"}
    )
    assert found(folder / "lib") == ["user.py:2 CALL flax.DenseGeneral"]


def test_all_says_what_a_star_takes(write: Write) -> None:
    compat = "from transformer_engine.jax import autocast as _a, dense, moe\n__all__ = ['_a', 'dense']\n"
    folder = write({"compat.py": compat, "user.py": "from compat import *\n_a()\ndense.dense()\nmoe()"})
    assert found(folder) == ["user.py:2 CALL autocast", "user.py:3 CALL dense.dense"]


def test_a_star_of_a_star_leads_to_names(write: Write) -> None:
    folder = write(
        {
            "compat.py": "from transformer_engine.jax.flax import *",
            "user.py": "from compat import DenseGeneral\nDenseGeneral()",
        }
    )
    assert found(folder) == ["user.py:2 CALL flax.DenseGeneral"]


def test_modules_that_import_each_other(write: Write) -> None:
    folder = write(
        {
            "lib/__init__.py": "from lib.a import make\nfrom lib.compat import DenseGeneral\n",
            "lib/a.py": "from lib.b import attend\nfrom lib import DenseGeneral\ndef make(): return DenseGeneral(1)\n",
            "lib/b.py": "import lib.a\ndef attend(): return lib.a.make()(2)\n",
            "lib/compat.py": COMPAT,
        }
    )
    assert found(folder) == ["lib/a.py:3 CALL flax.DenseGeneral", "lib/b.py:2 CALL flax.DenseGeneral.__call__"]


def test_classes_of_other_modules_are_known(write: Write) -> None:
    folder = write(
        {
            "base.py": """
            import transformer_engine.jax as te
            class Base(te.flax.module.TransformerEngineBase):
                def setup(self): self.norm = te.flax.LayerNorm()
        """,
            "user.py": """
            from base import Base
            class Mine(Base):
                def generate_quantizer_set(self, postfix): return self.norm(postfix)
        """,
        }
    )
    assert [line for line in found(folder) if "user" in line] == [
        "user.py:4 OVERRIDE flax.module.TransformerEngineBase.generate_quantizer_set",
        "user.py:4 CALL flax.LayerNorm.__call__",
    ]


def test_a_standard_module_is_none_of_the_users(write: Write) -> None:
    folder = write({"inspect.py": COMPAT, "user.py": "from inspect import DenseGeneral\nDenseGeneral()"})
    assert [line for line in found(folder) if "user" in line] == []


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are parsed."""
    names: list[str] = []

    def parts(source: Source, content: bytes) -> Iterator[object]:
        names.append(Path(source.path).name)
        return parse(source, content)

    monkeypatch.setattr(evaluation, "parse", parts)
    return names


def test_only_what_may_use_it_is_parsed(write: Write, parsed: list[str]) -> None:
    write(
        {
            "lib/compat.py": COMPAT + "def other(): return 1\n",
            "lib/user.py": "from lib.compat import DenseGeneral\n",
            "lib/user_of_user.py": "from lib.user import DenseGeneral\n",
            "lib/neighbour.py": "from lib.compat import other\n",
            "lib/stranger.py": "import os\n",
        }
    )
    find_uses([write({})])
    assert sorted(parsed) == ["compat.py", "user.py", "user_of_user.py"]
