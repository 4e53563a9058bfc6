"""Public names and signatures read from source, and what differs between two of them for a caller."""

import dataclasses
import platform
import textwrap
from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.names.public_api import public_api
from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.gate.verdict.signatures import ApiChange, SignatureDifference, signature_differences
from mnist_fp8.record.entries import Parameter, Signature
from support.packages import JAX, installed, package
from support.subprocesses import run_code

RECIPE = "transformer_engine.common.recipe"


def api(root: Path) -> dict[str, Signature]:
    """Public names and their signatures."""
    return public_api(read_names(root))


def read(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Public names as a person reads them, without modules."""
    found = api(package(folder, files))
    return {name: f"{each.what} {each.as_source}" for name, each in found.items() if each.what != "module"}


NAMES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "only what __all__ names": (
        {
            "jax/dense.py": """
                __all__ = ['dense']
                def dense(x): ...
                def other(): ...
            """,
        },
        {f"{JAX}.dense.dense": "function (x)"},
    ),
    "a list of names in pieces": (
        {
            "jax/dense.py": """
                __all__ = ['a'] + ['b']
                __all__ += ['c']
                a = 1
                b = 2
                c = 3
            """,
        },
        {
            f"{JAX}.dense.a": "attribute 1",
            f"{JAX}.dense.b": "attribute 2",
            f"{JAX}.dense.c": "attribute 3",
        },
    ),
    "a name in __all__ that is nowhere": (
        {
            "jax/dense.py": """
                __all__ = ['gone', 'a']
                a = 1
            """,
        },
        {f"{JAX}.dense.a": "attribute 1"},
    ),
    "a name with an underscore, even in __all__": (
        {
            "jax/dense.py": """
                __all__ = ['_block']
                def _block(): ...
            """,
        },
        {},
    ),
    "without __all__, what a module defines": (
        {
            "jax/dense.py": """
                import os
                from .sharding import AXES
                from jax import jit
                def dense(): ...
                def _rule(): ...
            """,
            "jax/sharding.py": """
                __all__ = []
                AXES = 'nvte'
            """,
        },
        {f"{JAX}.dense.dense": "function ()"},
    ),
    "without __all__, what a package collects": (
        {
            "jax/quantize/__init__.py": """
                from .tensor import *
                from .helper import scale, _hidden
                from jax import jit
            """,
            "jax/quantize/tensor.py": """
                import numpy as np
                def make(): ...
            """,
            "jax/quantize/helper.py": """
                def scale(amax): ...
                def _hidden(): ...
            """,
        },
        {
            f"{JAX}.quantize.make": "function ()",
            f"{JAX}.quantize.scale": "function (amax)",
        },
    ),
    "one name at two places": (
        {
            "jax/__init__.py": """
                from .sharding import MeshResource
                __all__ = ['MeshResource']
            """,
            "jax/sharding.py": """
                from dataclasses import dataclass
                @dataclass
                class MeshResource:
                    dp: str = None
                    def axes(self): ...
            """,
        },
        {
            f"{JAX}.MeshResource": "class (dp=None)",
            f"{JAX}.MeshResource.axes": "method ()",
            f"{JAX}.sharding.MeshResource": "class (dp=None)",
            f"{JAX}.sharding.MeshResource.axes": "method ()",
        },
    ),
    "a name of another distribution": (
        {
            "jax/__init__.py": """
                from .sharding import Mesh
                __all__ = ['Mesh']
            """,
            "jax/sharding.py": "from jax.sharding import Mesh as Mesh",
        },
        {f"{JAX}.Mesh": "attribute jax.sharding.Mesh"},
    ),
    "a name of a framework that is not read": (
        {
            "jax/__init__.py": """
                from ..pytorch import Linear
                __all__ = ['Linear']
            """,
            "pytorch/__init__.py": "class Linear: ...",
        },
        {f"{JAX}.Linear": "attribute transformer_engine.pytorch.Linear"},
    ),
    "names that import each other": (
        {
            "jax/dense.py": """
                from .moe import x
                __all__ = ['x']
            """,
            "jax/moe.py": """
                from .dense import x
                __all__ = []
            """,
        },
        {f"{JAX}.dense.x": f"attribute {JAX}.moe.x"},
    ),
    "a name that is set to another name": (
        {
            "jax/ep.py": """
                from . import cpp_extensions as tex
                __all__ = ['prepare']
                prepare = tex.prepare
            """,
            "jax/cpp_extensions/__init__.py": "from .ep import *",
            "jax/cpp_extensions/ep.py": "def prepare(tokens): ...",
        },
        {f"{JAX}.ep.prepare": "function (tokens)"},
    ),
    "names that are set to themselves": (
        {
            "jax/ep.py": """
                a = a
                b = c
                c = b
            """,
        },
        {
            f"{JAX}.ep.a": "attribute a",
            f"{JAX}.ep.b": "attribute c",
            f"{JAX}.ep.c": "attribute b",
        },
    ),
    "a constant behind a name, in a value and in a default": (
        {
            "jax/moe.py": """
                _SIZE = 128
                ALIGN = _SIZE
                def moe(x, align=_SIZE): ...
            """,
        },
        {
            f"{JAX}.moe.ALIGN": "attribute 128",
            f"{JAX}.moe.moe": "function (x, align=128)",
        },
    ),
    "definitions under conditions": (
        {
            "jax/dense.py": """
                import sys
                if sys.version_info > (3, 12):
                    def dense(x): ...
                else:
                    def dense(x): ...
                try:
                    import triton
                    FAST = True
                except ImportError:
                    FAST = False
                for i in range(2): pass
                with open('x'): pass
                (a, b), c = (1, 2), 3
            """,
        },
        {
            f"{JAX}.dense.dense": "function (x)",
            f"{JAX}.dense.FAST": "attribute True",
        },
    ),
    "no module that is machinery, private or nested": (
        {
            "jax/cpp_extensions.py": "def f(): ...",
            "jax/triton_extensions/sort.py": "def f(): ...",
            "jax/setup.py": "def f(): ...",
            "jax/version_utils.py": "def f(): ...",
            "jax/util.py": "def f(): ...",
            "jax/_private.py": "def f(): ...",
            "jax/quantize/helper.py": "def f(): ...",
        },
        {},
    ),
    "nothing of other frameworks and of common": (
        {
            "pytorch/module.py": "def f(): ...",
            "common/utils.py": "def f(): ...",
            "debug/log.py": "def f(): ...",
            "common/recipes.py": "def f(): ...",
        },
        {},
    ),
    "recipes in a package": (
        {"common/recipe/__init__.py": "def make(): ...", "common/recipe/inner.py": "def f(): ..."},
        {f"{RECIPE}.make": "function ()"},
    ),
    "recipes in a file": (
        {
            "common/recipe.py": """
                from dataclasses import dataclass
                @dataclass()
                class Delayed:
                    margin: int = 0
            """,
        },
        {f"{RECIPE}.Delayed": "class (margin=0)"},
    ),
    "a nested module that __all__ names": (
        {
            "jax/debug/__init__.py": "__all__ = ['experimental']",
            "jax/debug/other.py": "def f(): ...",
            "jax/debug/experimental/__init__.py": "def inspect(x): ...",
        },
        {f"{JAX}.debug.experimental.inspect": "function (x)"},
    ),
    "functions behind decorators": (
        {
            "jax/dense.py": """
                import jax
                from contextlib import contextmanager
                from functools import partial
                @contextmanager
                def autocast(enabled=False): yield
                @partial(jax.custom_vjp, nondiff_argnums=(1,))
                def dense(x, y): ...
            """,
        },
        {
            f"{JAX}.dense.autocast": "function (enabled=False)",
            f"{JAX}.dense.dense": "function (x, y)",
        },
    ),
    "every kind of parameter, defaults in one spelling": (
        {
            "jax/dense.py": """
                def f(a, /, b: int, c = "x", *args, d, e=( 1,2 ), g = 1e-6, **kwargs): ...
                def h(*, a): ...
            """,
        },
        {
            f"{JAX}.dense.f": "function (a, /, b, c='x', *args, d, e=(1, 2), g=1e-06, **kwargs)",
            f"{JAX}.dense.h": "function (*, a)",
        },
    ),
}


@pytest.mark.parametrize(("files", "expected"), NAMES.values(), ids=NAMES)
def test_public_is_what_users_import(files: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    assert read(tmp_path, files) == expected


def test_modules_are_names_too(tmp_path: Path) -> None:
    files = {
        "jax/__init__.py": "from . import flax\n__all__ = ['flax']",
        "jax/flax/module.py": "",
        "jax/dense.py": "",
        "jax/setup.py": "",
        "common/recipe.py": "",
    }
    found = api(package(tmp_path, files))
    assert dict.fromkeys((RECIPE, JAX, f"{JAX}.dense", f"{JAX}.flax"), Signature("module")) == found
    assert list(found) == sorted(found)


HEAD = """
import enum
from dataclasses import dataclass, field, InitVar
from enum import Enum
from typing import ClassVar, NamedTuple, Optional
from flax import linen as nn
import flax
import pydantic
"""
CLASSES: dict[str, tuple[str, dict[str, str]]] = {
    "a dataclass": (
        """
            @dataclass
            class A:
                x: int
                y: int = 0
                _z: int = 1
                k: ClassVar[int] = 2
                n = 3
        """,
        {
            "A": "class (x, y=0)",
            "A.k": "attribute 2",
            "A.n": "attribute 3",
        },
    ),
    "a dataclass of pydantic": (
        """
            @pydantic.dataclasses.dataclass(repr=False)
            class A:
                x: int = 0
        """,
        {"A": "class (x=0)"},
    ),
    "a dataclass of Flax": (
        """
            @flax.struct.dataclass
            class A:
                x: int = flax.struct.field(pytree_node=False)
        """,
        {"A": "class (x)"},
    ),
    "a Flax module": (
        """
            class A(nn.Module):
                features: int
                bias: bool = True
                def setup(self): ...
                @nn.compact
                def __call__(self, x, *, train=False): ...
        """,
        {
            "A": "class (features, bias=True)",
            "A.setup": "method ()",
            "A.__call__": "method (x, *, train=False)",
        },
    ),
    "fields of a base come first, and keep their place": (
        """
            class B(nn.Module):
                x: int = 0
                y: int = 1
            class A(B):
                z: int = 2
                x: int = 3
        """,
        {
            "A": "class (x=3, y=1, z=2)",
            "B": "class (x=0, y=1)",
        },
    ),
    "a subclass of a dataclass that is none itself": (
        """
            @dataclass
            class B:
                x: int = 0
            class A(B):
                y: int = 1
        """,
        {
            "A": "class (x=0)",
            "A.y": "attribute 1",
            "B": "class (x=0)",
        },
    ),
    "a dataclass of a class that is none": (
        """
            class B:
                x: int = 0
            @dataclass
            class A(B):
                y: int = 1
        """,
        {
            "A": "class (y=1)",
            "A.x": "attribute 0",
            "B": "class ()",
            "B.x": "attribute 0",
        },
    ),
    "options of fields": (
        """
            @dataclass
            class A:
                a: int = field()
                b: int = field(default=1)
                c: list = field(default_factory=lambda: [1])
                d: int = field(init=False)
                e: int = field(default=2, kw_only=True)
                f: InitVar[int] = 3
        """,
        {"A": "class (a, b=1, c=field(default_factory=lambda: [1]), f=3, *, e=2)"},
    ),
    "a dataclass by keyword only": (
        """
            @dataclass(frozen=True, kw_only=True)
            class A:
                x: int
        """,
        {"A": "class (*, x)"},
    ),
    "a named tuple": (
        """
            class A(NamedTuple):
                x: int
                y: int = 0
        """,
        {"A": "class (x, y=0)"},
    ),
    "members of an enumeration": (
        """
            class A(Enum):
                X = 'x'
                Y = 'y'
                @property
                def is_x(self): ...
            class B(enum.IntFlag):
                X = 1
            C = A.X
            D = B.X
            def f(a=A.Y): ...
        """,
        {
            "A": "class ()",
            "A.X": "attribute 'x'",
            "A.Y": "attribute 'y'",
            "A.is_x": "attribute ",
            "B": "class ()",
            "B.X": "attribute 1",
            "C": "attribute A.X",
            "D": "attribute B.X",
            "f": "function (a=A.Y)",
        },
    ),
    "a constructor of its own": (
        """
            @dataclass
            class A:
                x: int
                def __init__(self, y, *rest):
                    self.x = y
                    self.w: int = 1
            class B(A): ...
        """,
        {
            "A": "class (y, *rest)",
            "B": "class (y, *rest)",
        },
    ),
    "a dataclass of a class with a constructor": (
        """
            class B:
                def __init__(self, y): ...
            @dataclass
            class A(B):
                x: int
        """,
        {
            "A": "class (x)",
            "B": "class (y)",
        },
    ),
    "kinds of methods": (
        """
            class A:
                @staticmethod
                def s(x): ...
                @classmethod
                def c(cls, x): ...
                def m(self, x): ...
                def v(*args): ...
                def _p(self): ...
                def __eq__(self, o): ...
        """,
        {
            "A": "class ()",
            "A.c": "method (x)",
            "A.m": "method (x)",
            "A.s": "method (x)",
            "A.v": "method (*args)",
        },
    ),
    "methods of a base, of the nearest that has them": (
        """
            class _C:
                def m(self, x): ...
            class B(_C):
                def m(self, y): ...
                def n(self): ...
            class A(B):
                def n(self, z): ...
        """,
        {
            "A": "class ()",
            "A.m": "method (y)",
            "A.n": "method (z)",
            "B": "class ()",
            "B.m": "method (y)",
            "B.n": "method ()",
        },
    ),
    "a class that is named like its base": (
        """
            from jax import A
            class A(A):
                def m(self): ...
        """,
        {
            "A": "class ()",
            "A.m": "method ()",
        },
    ),
    "a class of a class that is not known": (
        """
            import jax
            class A(jax.Thing, jax.make('x')):
                x: int = 0
        """,
        {
            "A": "class ()",
            "A.x": "attribute 0",
        },
    ),
}


@pytest.mark.parametrize(("code", "expected"), CLASSES.values(), ids=CLASSES)
def test_class_takes_what_its_constructor_takes(code: str, expected: dict[str, str], tmp_path: Path) -> None:
    found = read(tmp_path, {"jax/__init__.py": "__all__ = []", "jax/x.py": HEAD + textwrap.dedent(code)})
    assert found == {f"{JAX}.x.{name}": text for name, text in expected.items()}


REMOVED, RENAMED, KIND = ApiChange.PARAMETER_REMOVED, ApiChange.PARAMETER_RENAMED, ApiChange.PARAMETER_KIND
OPTIONAL, REQUIRED = ApiChange.PARAMETER_ADDED_OPTIONAL, ApiChange.PARAMETER_ADDED_REQUIRED
NOW_REQUIRED, MOVED, DEFAULT = ApiChange.PARAMETER_NOW_REQUIRED, ApiChange.PARAMETER_MOVED, ApiChange.DEFAULT_CHANGED
Row = tuple[ApiChange, str, str, str]
DIFFERENCES: dict[str, tuple[str, str, list[Row]]] = {
    "nothing": (
        "def f(a, b=1, *c, d, **e): ...",
        "def f(a, b=1, *c, d, **e): ...",
        [],
    ),
    "spelling, annotations and what it does": (
        "def f(a, b='x'): ...",
        'def f(a: int, b: str = "x") -> int: return 1',
        [],
    ),
    "names of variadic parameters": (
        "def f(*a, **b): ...",
        "def f(*args, **kwargs): ...",
        [],
    ),
    "name of a parameter that is given by position": (
        "def f(a, /): ...",
        "def f(b, /): ...",
        [],
    ),
    "order of keywords": (
        "def f(*, a, b=1): ...",
        "def f(*, b=1, a): ...",
        [],
    ),
    "an argument that need not be given any more": (
        "def f(a): ...",
        "def f(a=1): ...",
        [],
    ),
    "more ways to give an argument": (
        "def f(a, /, *, b): ...",
        "def f(a, b): ...",
        [],
    ),
    "optional, at the end": (
        "def f(a): ...",
        "def f(a, b=1): ...",
        [(OPTIONAL, "b", "", "b=1")],
    ),
    "optional, by keyword": (
        "def f(a): ...",
        "def f(a, *, b=1): ...",
        [(OPTIONAL, "b", "", "b=1")],
    ),
    "required, by keyword": (
        "def f(a): ...",
        "def f(a, *, b): ...",
        [(REQUIRED, "b", "", "b")],
    ),
    "variadic ones came": (
        "def f(): ...",
        "def f(*a, **b): ...",
        [(OPTIONAL, "*a", "", "*a"), (OPTIONAL, "**b", "", "**b")],
    ),
    "variadic ones went": (
        "def f(*a, **b): ...",
        "def f(): ...",
        [(REMOVED, "*a", "*a", ""), (REMOVED, "**b", "**b", "")],
    ),
    "now required": (
        "def f(a=1): ...",
        "def f(a): ...",
        [(NOW_REQUIRED, "a", "a=1", "a")],
    ),
    "another default": (
        "def f(a=1): ...",
        "def f(a=None): ...",
        [(DEFAULT, "a", "a=1", "a=None")],
    ),
    "removed at the end": (
        "def f(a, b=1): ...",
        "def f(a): ...",
        [(REMOVED, "b", "b=1", "")],
    ),
    "removed before others": (
        "def f(a, b, c): ...",
        "def f(a, c): ...",
        [(REMOVED, "b", "b", ""), (MOVED, "c", "position 3", "position 2")],
    ),
    "inserted before others": (
        "def f(a, b, c, *, k): ...",
        "def f(a, x, b, c, *, k): ...",
        [(REQUIRED, "x", "", "x"), (MOVED, "b, c", "positions 2-3", "positions 3-4")],
    ),
    "inserted before *args": (
        "def f(a, *rest): ...",
        "def f(a, b=1, *rest): ...",
        [(OPTIONAL, "b", "", "b=1"), (MOVED, "*rest", "position 2", "position 3")],
    ),
    "inserted before keywords": (
        "def f(a, *, k): ...",
        "def f(a, x=1, *, k): ...",
        [(OPTIONAL, "x", "", "x=1")],
    ),
    "another order": (
        "def f(a, b, c): ...",
        "def f(c, a, b): ...",
        [(MOVED, "a, b, c", "positions 1-3", "positions 2-3, 1")],
    ),
    "two that changed places": (
        "def f(a, b, c): ...",
        "def f(c, b, a): ...",
        [(MOVED, "a, c", "positions 1, 3", "positions 3, 1")],
    ),
    "renamed": (
        "def f(a, b=1, c=2): ...",
        "def f(a, x=1, c=2): ...",
        [(RENAMED, "b", "b=1", "x=1")],
    ),
    "renamed, by keyword": (
        "def f(*, a, b=1): ...",
        "def f(*, a, x=1): ...",
        [(RENAMED, "b", "b=1", "x=1")],
    ),
    "renamed, with another default": (
        "def f(a=1): ...",
        "def f(x=2): ...",
        [(RENAMED, "a", "a=1", "x=2"), (DEFAULT, "a", "a=1", "x=2")],
    ),
    "renamed and moved": (
        "def f(a, b): ...",
        "def f(n, a, x): ...",
        [(RENAMED, "b", "b", "x"), (REQUIRED, "n", "", "n"), (MOVED, "a, b", "positions 1-2", "positions 2-3")],
    ),
    "one went, another came elsewhere": (
        "def f(a, b, c=1): ...",
        "def f(a, c=1, x=2): ...",
        [(REMOVED, "b", "b", ""), (OPTIONAL, "x", "", "x=2"), (MOVED, "c", "position 3", "position 2")],
    ),
    "two went, two came": (
        "def f(a, b): ...",
        "def f(x=1, y=2): ...",
        [(REMOVED, "a", "a", ""), (REMOVED, "b", "b", ""), (OPTIONAL, "x", "", "x=1"), (OPTIONAL, "y", "", "y=2")],
    ),
    "a variadic parameter is never renamed": (
        "def f(*a): ...",
        "def f(a): ...",
        [(REMOVED, "*a", "*a", ""), (REQUIRED, "a", "", "a")],
    ),
    "by keyword only": (
        "def f(a=1): ...",
        "def f(*, a=1): ...",
        [(KIND, "a", "a by position or keyword", "a by keyword only")],
    ),
    "by position only": (
        "def f(a): ...",
        "def f(a, /): ...",
        [(KIND, "a", "a by position or keyword", "a by position only")],
    ),
    "a function that became a class": (
        "def f(a): ...",
        """
            class f:
                def __init__(self, a, b): ...
        """,
        [(ApiChange.KIND, "", "function", "class"), (REQUIRED, "b", "", "b")],
    ),
    "a function that became a value": (
        "def f(a): ...",
        "f = 1",
        [(ApiChange.KIND, "", "function", "attribute")],
    ),
    "another value": (
        "f = 'fp8_metas'",
        "f = 'fp8'",
        [(ApiChange.VALUE_CHANGED, "", "'fp8_metas'", "'fp8'")],
    ),
    "the same value behind a name": (
        "f = 1",
        """
            _g = 1
            f = _g
        """,
        [],
    ),
    "fields that are inserted": (
        """
            from flax import linen as nn
            class f(nn.Module):
                features: int
                axis: int = -1
                dtype: str = 'x'
        """,
        """
            from flax import linen as nn
            class f(nn.Module):
                features: int
                lora: bool = False
                axis: int = -1
                dtype: str = 'x'
        """,
        [(OPTIONAL, "lora", "", "lora=False"), (MOVED, "axis, dtype", "positions 2-3", "positions 3-4")],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_difference_is_what_a_caller_notices(old: str, new: str, expected: list[Row], tmp_path: Path) -> None:
    before, after = (
        api(package(tmp_path / name, {"jax/x.py": code}))[f"{JAX}.x.f"] for name, code in (("old", old), ("new", new))
    )
    assert signature_differences(before, after) == tuple(SignatureDifference(*row) for row in expected)
    assert signature_differences(after, after) == ()


def test_signature_is_shown_as_source_has_it() -> None:
    by_position = (Parameter("a", "positional", None), Parameter("b", "positional", "1"))
    by_keyword = (Parameter("c", "keyword", None), Parameter("d", "keyword", "2"))
    assert Signature("function", by_position + by_keyword).as_source == "(a, b=1, /, *, c, d=2)"
    assert Signature("function", (Parameter("rest", "*", None), *by_keyword)).as_source == "(*rest, c, d=2)"
    assert Signature("method", by_position).as_source == "(a, b=1, /)"
    assert Signature("class").as_source == "()"
    assert Signature("attribute", value="'nvte'").as_source == "'nvte'"
    assert not Signature("module").as_source


def test_installed_transformer_engine_is_read() -> None:
    found = api(installed())
    assert [each.name for each in found[f"{JAX}.autocast"].parameters] == ["enabled", "recipe", "mesh_resource"]
    assert found[f"{JAX}.MeshResource"].as_source.startswith("(dp_resource=None, tp_resource=None, ")
    assert found[f"{JAX}.flax"] == Signature("module")
    dense = found[f"{JAX}.flax.DenseGeneral"]
    assert dense.what == "class"
    assert [each.name for each in dense.parameters[:4]] == ["features", "kernel_init", "kernel_axes", "use_bias"]
    assert [each.default for each in dense.parameters[:4]] == [None, "None", "()", "True"]
    assert found[f"{JAX}.flax.DenseGeneral.__call__"].as_source == "(inputs)"
    assert found[f"{JAX}.flax.DenseGeneral.generate_quantizer_set"].what == "method"
    assert Parameter("margin", "either", "0") in found[f"{RECIPE}.DelayedScaling"].parameters
    assert found[f"{RECIPE}.Format.E4M3"].what == "attribute"
    assert found[f"{JAX}.NVTE_FP8_COLLECTION_NAME"] == Signature("attribute", value="'fp8_metas'")
    assert not [name for name in found if "._" in name.replace(".__call__", "") or "cpp_extensions" in name]


def test_reading_imports_nothing_and_comparing_needs_no_griffe(tmp_path: Path) -> None:
    root = package(tmp_path, {"__init__.py": "1 / 0", "jax/__init__.py": "import jax", "jax/x.py": "1 / 0\nf = 1"})
    run_code(f"""
        import pathlib, sys
        from mnist_fp8.gate.names.public_api import public_api
        from mnist_fp8.gate.names.reading import read_names
        assert "griffe" not in sys.modules
        found = public_api(read_names(pathlib.Path({str(root)!r})))
        assert found["{JAX}.x.f"].value == "1"
        assert not sys.modules.keys() & {{"transformer_engine", "jax"}}
    """)


def test_folder_that_is_named_is_read_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = package(tmp_path / "asked", {"jax/asked.py": ""})
    monkeypatch.chdir(package(tmp_path / "here", {"jax/here.py": ""}).parent)
    assert list(api(asked)) == [JAX, f"{JAX}.asked"]
    assert list(api(Path("transformer_engine"))) == [JAX, f"{JAX}.here"]


@pytest.mark.parametrize("folder", ["transformer_engine", "transformer_engine/jax", "elsewhere", "missing"])
def test_folder_without_transformer_engine_is_refused_in_one_line(folder: str, tmp_path: Path) -> None:
    package(tmp_path, {})
    (tmp_path / "transformer_engine" / "jax" / "__init__.py").unlink()
    (tmp_path / "elsewhere" / "jax").mkdir(parents=True)
    (tmp_path / "elsewhere" / "jax" / "__init__.py").touch()
    with pytest.raises(ConfigError) as caught:
        api(tmp_path / folder)
    expected = "expected a folder transformer_engine with jax/__init__.py in it"
    assert str(caught.value) == f"{tmp_path / folder} is no Transformer Engine for JAX; {expected}"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("__init__.py", "{root}/__init__.py"),
        ("jax/__init__.py", JAX),
        ("jax/dense.py", f"{JAX}.dense"),
        ("jax/flax/__init__.py", f"{JAX}.flax"),
        ("jax/flax/module.py", f"{JAX}.flax.module"),
    ],
)
def test_source_that_cannot_be_read_is_no_removed_name(
    name: str, path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = package(tmp_path, {"jax/flax/module.py": "", name: "def dense(:"})
    with pytest.raises(ConfigError) as caught:
        api(root)
    where = f"{path.format(root=root)} cannot be read by Python {platform.python_version()}"
    what_to_do = "run mnist-fp8 with the Python that this Transformer Engine is made for"
    assert str(caught.value) == f"{where}; {what_to_do}"
    assert not caplog.records


def test_warnings_about_source_are_not_ours_to_show(tmp_path: Path) -> None:
    code = "def f(pattern='\\d'): ..."
    with pytest.raises(SyntaxError):  # Control: the suite turns warnings into errors.
        compile(code, "dense.py", "exec")
    assert read(tmp_path, {"jax/dense.py": code}) == {f"{JAX}.dense.f": r"function (pattern='\\d')"}


def test_files_that_are_no_modules_are_passed_over(tmp_path: Path) -> None:
    root = package(tmp_path, {"jax/dense.py": "x = 1"})
    for name in ("jax/csrc/build.py", "jax/csrc/inner/__init__.py", "jax/native.so", "pytorch/broken.py"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def (")
    assert list(api(root)) == [JAX, f"{JAX}.dense", f"{JAX}.dense.x"]


def test_a_package_beside_that_of_jax_is_none_of_its_names(tmp_path: Path) -> None:
    names = read_names(package(tmp_path, {"jax/dense.py": "x = 1"}))
    beside = dataclasses.replace(names, unread={"transformer_engine.jaxed": "no part of it"})
    assert public_api(beside) == public_api(names)
