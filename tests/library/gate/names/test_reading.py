"""Names read from source: one small package for each way to define, to bind and to hide a name."""

import dataclasses
import platform
import textwrap
from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.record.names import Found, Names, Passed
from support.packages import JAX, package

TE = "transformer_engine"
HEAD = """
import abc, contextlib, dataclasses, enum, flax, functools, jax, typing
from flax import linen as nn
from functools import partial
from typing import NamedTuple
"""


def read(folder: Path, code: str, **modules: str) -> Names:
    """The names of a package with a module ``x``, and others of ``transformer_engine.jax``."""
    others = {f"jax/{name.replace('__', '/')}.py": text for name, text in modules.items()}
    return read_names(package(folder, {"jax/x.py": HEAD + textwrap.dedent(code), **others}))


def found(names: Names, path: str) -> Found:
    leads = names.find(f"{JAX}.{path}")
    assert leads, path
    return leads


def described(leads: Found) -> str:
    """What was found, as one line: where, what, and how it is called."""
    where = leads.path.removeprefix(f"{JAX}.") + (f" of {leads.owner.removeprefix(f'{JAX}.')}" if leads.owner else "")
    if leads.definition is None:
        return f"{where}: elsewhere"
    sure = "" if leads.is_certain else ", perhaps"
    return f"{where}: {leads.definition.signature.what} {leads.definition.signature.as_source}".rstrip() + sure


DEFINITIONS: dict[str, tuple[str, dict[str, str]]] = {
    "functions": (
        """
            def f(a, /, b=1, *c, d, **e): ...
            async def g(x): ...
            def _private(x): ...
        """,
        {
            "x.f": "x.f: function (a, /, b=1, *c, d, **e)",
            "x.g": "x.g: function (x)",
            "x._private": "x._private: function (x)",
        },
    ),
    "functions behind decorators": (
        """
            @partial(jax.custom_vjp, nondiff_argnums=(1,))
            def f(x, y=2): ...
            @jax.jit
            def g(x): ...
            @contextlib.contextmanager
            def h(x): yield
            @functools.lru_cache(maxsize=None)
            def i(x): ...
        """,
        {
            "x.f": "x.f: function (x, y=2)",
            "x.g": "x.g: function (x)",
            "x.h": "x.h: function (x)",
            "x.i": "x.i: function (x)",
            "x.f.defvjp": "x.f.defvjp: elsewhere",
        },
    ),
    "functions made of functions": (
        """
            def f(a, b, c=3, *, d=4): ...
            first = partial(f, 1)
            by_name = partial(f, b=2)
            jitted = jax.jit(f, static_argnums=(0,))
            both = jax.jit(partial(first, d=5))
            again = jax.custom_vjp(jitted)
            short = lambda x, y=1: x
            made = partial(short, 0)
            unknown = partial(jax.numpy.dot, 1)
            other = functools.reduce(f, [])
        """,
        {
            "x.first": "x.first: function (b, c=3, *, d=4)",
            "x.by_name": "x.by_name: function (a, *, b=2, c=3, d=4)",
            "x.jitted": "x.jitted: function (a, b, c=3, *, d=4)",
            "x.both": "x.both: function (b, c=3, *, d=5)",
            "x.again": "x.again: function (a, b, c=3, *, d=4)",
            "x.short": "x.short: function (x, y=1)",
            "x.made": "x.made: function (y=1)",
            "x.unknown": "x.unknown: attribute partial(jax.numpy.dot, 1)",
            "x.other": "x.other: attribute functools.reduce(f, [])",
        },
    ),
    "functions made of each other": (
        """
            f = jax.jit(g)
            g = jax.jit(f)
            h = jax.jit(h)
        """,
        {"x.f": "x.f: attribute jax.jit(g)", "x.g": "x.g: attribute jax.jit(f)", "x.h": "x.h: attribute jax.jit(h)"},
    ),
    "a class of classes": (
        """
            class A(partial): pass
            B = partial(C, 1)
            class C:
                def __init__(self, x, y): ...
        """,
        {"x.B": "x.B: class (y)", "x.A": "x.A: class (*args, **kwargs)"},
    ),
    "constants": (
        """
            A = 448.0
            B: int = 2
            C = D = 'x'
            E = A
            F: float
            (G, H), I = (1, 2), 3
        """,
        {
            "x.A": "x.A: attribute 448.0",
            "x.B": "x.B: attribute 2",
            "x.D": "x.D: attribute 'x'",
            "x.E": "x.A: attribute 448.0",
            "x.G": "x.G: attribute",
            "x.H": "x.H: attribute",
        },
    ),
    "an enumeration": (
        """
            class A(enum.Enum):
                X = 1
                Y = NVTE_Bias_Type.NVTE_NO_BIAS
                _ignore_ = []
                @property
                def is_x(self): ...
                def f(self, y): ...
                @classmethod
                def make(cls, z): ...
            class B(A): ...
            C = A.X
        """,
        {
            "x.A": "x.A: class (value)",
            "x.A.X": "x.A.X: member 1",
            "x.A.Y": "x.A.Y: member NVTE_Bias_Type.NVTE_NO_BIAS",
            "x.A._ignore_": "x.A._ignore_: attribute []",
            "x.A.is_x": "x.A.is_x: property",
            "x.A.f": "x.A.f: method (y)",
            "x.A.make": "x.A.make: method (z)",
            "x.A.X.f": "x.A.f: method (y), perhaps",
            "x.A.X.value": "enum.Enum.value: elsewhere",
            "x.B.X": "x.A.X of x.A: member 1",
            "x.C": "x.C: attribute A.X",
        },
    ),
    "a dataclass": (
        """
            @dataclasses.dataclass
            class A:
                x: int
                y: int = 0
                _z: int = 1
                k: typing.ClassVar[int] = 2
                def __post_init__(self): self.w = 1
            @dataclasses.dataclass(frozen=True)
            class B(A):
                z: list = dataclasses.field(default_factory=list)
                def __post_init__(self): object.__setattr__(self, "v", 1)
        """,
        {
            "x.A": "x.A: class (x, y=0, _z=1)",
            "x.A.x": "x.A.x: field",
            "x.A.k": "x.A.k: attribute 2",
            "x.A.w": "x.A.w: attribute",
            "x.B": "x.B: class (x, y=0, _z=1, z=field(default_factory=list))",
            "x.B.y": "x.A.y of x.A: field 0",
            "x.B.z": "x.B.z: field field(default_factory=list)",
            "x.B.v": "x.B.v: attribute",
        },
    ),
    "a Flax module": (
        """
            class Base(nn.Module):
                features: int = 1
            class A(Base):
                bias: bool = True
                def setup(self): self.inner = nn.Dense(1)
                @nn.compact
                def __call__(self, x): ...
        """,
        {
            "x.A": "x.A: class (features=1, bias=True, parent=None, name=None)",
            "x.A.features": "x.Base.features of x.Base: field 1",
            "x.A.__call__": "x.A.__call__: method (x)",
            "x.A.inner": "x.A.inner: attribute",
            "x.A.apply": "flax.linen.Module.apply: elsewhere",
        },
    ),
    "a module of Praxis": (
        """
            from praxis.base_layer import BaseLayer
            class A(BaseLayer):
                x: int = 0
        """,
        {"x.A": "x.A: class (x=0, **kwargs)", "x.A.fprop": "praxis.base_layer.BaseLayer.fprop: elsewhere"},
    ),
    "a named tuple": (
        """
            class A(NamedTuple):
                x: int
                y: int = 0
        """,
        {
            "x.A": "x.A: class (x, y=0)",
            "x.A.x": "x.A.x: field",
            "x.A._replace": "typing.NamedTuple._replace: elsewhere",
        },
    ),
    "a class of flax.struct": (
        """
            @flax.struct.dataclass
            class A:
                x: int
        """,
        {"x.A": "x.A: class (x)", "x.A.replace": "x.A.replace: elsewhere"},
    ),
    "constructors": (
        """
            class A:
                def __init__(self, x, y=1): self.x = x
            class B(A): ...
            class C(jax.Thing): ...
            class D(abc.ABC): ...
            class E: ...
        """,
        {
            "x.A": "x.A: class (x, y=1)",
            "x.A.x": "x.A.x: attribute",
            "x.B": "x.B: class (x, y=1)",
            "x.B.x": "x.A.x of x.A: attribute",
            "x.C": "x.C: class (*args, **kwargs)",
            "x.D": "x.D: class ()",
            "x.E": "x.E: class ()",
        },
    ),
    "methods": (
        """
            def outside(a, b): ...
            class A:
                @staticmethod
                def s(x): ...
                @classmethod
                def c(cls, x): ...
                @functools.cached_property
                def p(self): ...
                t = staticmethod(outside)
                def m(self, x): self.later = x
                n = m
                class Inner:
                    def f(self): ...
        """,
        {
            "x.A.s": "x.A.s: method (x)",
            "x.A.c": "x.A.c: method (x)",
            "x.A.p": "x.A.p: property",
            "x.A.t": "x.A.t: method (a, b)",
            "x.A.n": "x.A.m: method (x)",
            "x.A.later": "x.A.later: attribute",
            "x.A.Inner.f": "x.A.Inner.f: method ()",
        },
    ),
    "an attribute that is set from outside": (
        """
            class A: ...
            def f(x): ...
            A.f = f
        """,
        {"x.A.f": "x.f: function (x)"},
    ),
    "names under conditions": (
        """
            if jax.__version__ > "0.5":
                def f(x): ...
            else:
                def f(y): ...
            try:
                A = 1
            except ImportError:
                A = None
            B = 1
            while B: B = 0
            with open("x") as C: D = 1
            for E in range(2): ...
            def g():
                global F
                F = 1
            if typing.TYPE_CHECKING:
                def never(): ...
            @functools.cache
            def h(x): ...
        """,
        {
            "x.f": "x.f: function (y), perhaps",
            "x.A": "x.A: attribute 1, perhaps",
            "x.B": "x.B: attribute 0, perhaps",
            "x.C": "x.C: attribute",
            "x.D": "x.D: attribute 1",
            "x.E": "x.E: attribute, perhaps",
            "x.F": "x.F: attribute, perhaps",
            "x.h": "x.h: function (x)",
        },
    ),
}


@pytest.mark.parametrize(("code", "expected"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_name_is_what_python_makes_of_it(code: str, expected: dict[str, str], tmp_path: Path) -> None:
    names = read(tmp_path, code)
    assert {path: described(found(names, path)) for path in expected} == expected


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("A = 1", "x.B"),
        ("if typing.TYPE_CHECKING:\n    A = 1", "x.A"),
        ("class A:\n    def f(self): ...", "x.A.g"),
        ("class A(enum.Enum):\n    X = 1", "x.A.Y"),
        ("class A(nn.Module):\n    x: int", "x.A.y"),
        ("class A(NamedTuple):\n    x: int", "x.A.y"),
        ("@dataclasses.dataclass\nclass A:\n    x: int", "x.A.replace"),
        ("@jax.tree_util.register_pytree_node_class\nclass A: ...", "x.A.y"),
        ("class A(metaclass=abc.ABCMeta): ...", "x.A.y"),
        ("'''\ndef f(): ...\n'''", "x.f"),
        ("def f():\n    def g(): ...", "x.g"),
        ("class A:\n    @staticmethod\n    def f(x): x.y = 1", "x.A.y"),
        ("[y for y in ()]", "x.y"),
    ],
)
def test_absence_can_be_relied_on(code: str, path: str, tmp_path: Path) -> None:
    assert read(tmp_path, code).find(f"{JAX}.{path}") is None


@pytest.mark.parametrize(
    ("code", "path", "unread", "reason"),
    [
        ("def __getattr__(name): ...", "x.y", "x", "__getattr__ makes names at run time"),
        ("globals()['y'] = 1", "x.y", "x", "globals() makes names at run time"),
        ("def f(): globals()['y'] = 1", "x.y", "x", "globals() makes names at run time"),
        ("exec('y = 1')", "x.y", "x", "exec() makes names at run time"),
        ("for n in 'ab': setattr(f, n, 1)", "x.y", "x", "setattr() makes names at run time"),
        ("from jax.thing import *", "x.y", "x", "it imports all of jax.thing"),
        ("from .gone import *", "x.y", "x", f"it imports all of {JAX}.gone"),
        ("class A:\n    def __getattr__(self, name): ...", "x.A.y", "x.A", "__getattr__ makes names at run time"),
        ("class A:\n    vars()['y'] = 1", "x.A.y", "x.A", "vars() makes names at run time"),
        ("@jax.unknown(1)\nclass A: ...", "x.A.y", "x.A", "jax.unknown can add names to it"),
        ("class A(metaclass=jax.Meta): ...", "x.A.y", "x.A", "jax.Meta can add names to it"),
    ],
)
def test_what_cannot_be_read_is_told(code: str, path: str, unread: str, reason: str, tmp_path: Path) -> None:
    names = read(tmp_path, code)
    assert names.unread == {f"{JAX}.{unread}": reason}
    assert names.find(f"{JAX}.{path}") == Found(f"{JAX}.{path}", None, is_certain=False)


IMPORTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "from elsewhere": (
        {"x": "from jax.sharding import PartitionSpec as P\nimport jax.numpy as jnp\nimport os.path"},
        {"x.P": "jax.sharding.PartitionSpec: elsewhere", "x.jnp": "jax.numpy: elsewhere", "x.os": "os: elsewhere"},
    ),
    "re-exports": (
        {
            "__init__": "from .x import f as g\nfrom . import x as y",
            "x": "def f(a): ...",
        },
        {"g": "x.f: function (a)", "y.f": "x.f: function (a)", "x.f": "x.f: function (a)"},
    ),
    "star imports with and without __all__": (
        {
            "__init__": "from .x import *\nfrom .z import *",
            "x": "__all__ = ['_a']\ndef _a(): ...\ndef b(): ...",
            "z": "def c(): ...\ndef _d(): ...",
        },
        {"_a": "x._a: function ()", "c": "z.c: function ()"},
    ),
    "a name of a module and of a function in it": (
        {
            "__init__": "from .gemm import *\nfrom .moe import moe",
            "gemm": "def gemm(a): ...\ndef other(): ...",
            "moe": "def moe(b): ...\ndef other(): ...",
        },
        {
            "gemm": "gemm.gemm: function (a)",
            "gemm.other": "gemm.other: function ()",
            "moe": "moe.moe: function (b)",
            "moe.other": "moe.other: function ()",
        },
    ),
    "second names": (
        {
            "x": "from . import z as tex\nf = tex.f\nA = tex.A",
            "z": "def f(a): ...\nclass A:\n    def m(self): ...",
        },
        {"x.f": "z.f: function (a)", "x.A.m": "z.A.m: method ()"},
    ),
    "a name that is wrapped under its own name": (
        {
            "__init__": "from .x import f, A\nimport jax\nfrom ..common.utils import deprecate_wrapper\n"
            "f = jax.jit(f)\nA = deprecate_wrapper(A, 'old')",
            "x": "def f(a): ...\nclass A:\n    def __init__(self, b): ...",
        },
        {"f": "f: function (a)", "A": "A: class (b)"},
    ),
    "a base class under another name": (
        {"x": "from .z import Base as B\nclass A(B): ...", "z": "class Base:\n    def m(self): ..."},
        {"x.A.m": "z.Base.m of z.Base: method ()"},
    ),
    "the native module": (
        {"x": "import transformer_engine_jax as tej\nfrom transformer_engine_jax import NVTE_Bias_Type as B"},
        {
            "x.tej.get_cudnn_version": "transformer_engine_jax.get_cudnn_version: elsewhere",
            "x.B.NVTE_NO_BIAS": "transformer_engine_jax.NVTE_Bias_Type.NVTE_NO_BIAS: elsewhere",
        },
    ),
    "under a condition": (
        {
            "x": "try:\n    from .z import f\nexcept ImportError:\n    f = None\ntry:\n    import jax\nexcept E: ...",
            "z": "def f(a): ...",
        },
        {"x.f": "z.f: function (a), perhaps", "x.jax": "jax: elsewhere"},
    ),
}


@pytest.mark.parametrize(("modules", "expected"), IMPORTS.values(), ids=IMPORTS)
def test_import_leads_to_what_it_imports(modules: dict[str, str], expected: dict[str, str], tmp_path: Path) -> None:
    names = read_names(package(tmp_path, {f"jax/{name}.py": code for name, code in modules.items()}))
    assert {path: described(found(names, path)) for path in expected} == expected


def test_only_a_condition_on_own_names_is_told(tmp_path: Path) -> None:
    names = read(tmp_path, "try:\n    from .z import f\n    import os\nexcept ImportError: ...", z="def f(): ...")
    assert names.unread == {f"{JAX}.x.f": "a condition decides on it"}


def test_what_star_imports_leave_out_is_absent(tmp_path: Path) -> None:
    names = read_names(package(tmp_path, {"jax/__init__.py": "from .x import *", "jax/x.py": "def _a(): ..."}))
    assert names.find(f"{JAX}._a") is None
    assert names.find(f"{JAX}.x._a")


# --- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "returns"),
    [
        ("return 1, 2", 2),
        ("if x: return 1, 2\nreturn 3, 4", 2),
        ("if x: return 1, 2\nreturn 3", None),
        ("if x: return 1, 2\nreturn 3, 4, 5", None),
        ("if x: return\nreturn 3, 4", None),
        ("return (1, *x)", None),
        ("return x", None),
        ("return ()", 0),
        ("pass", None),
        ("def g(): return 1, 2, 3\nreturn 1, 2", 2),
        ("yield 1\nreturn 1, 2", None),
        ("class A:\n    def f(self): return 1\nreturn [(1, 2) for y in x], 3", 2),
    ],
)
def test_length_of_a_returned_tuple(body: str, returns: int | None, tmp_path: Path) -> None:
    names = read(tmp_path, "def f(x):\n" + textwrap.indent(body, "    "))
    definition = found(names, "x.f").definition
    assert definition
    assert definition.returns == returns


@pytest.mark.parametrize(
    ("annotation", "body", "returns"),
    [
        ("Tuple[int, str]", "return g(x)", 2),
        ("typing.Tuple[int, str, int]", "return g(x)", 3),
        ("tuple[int, str]", "y = g(x)\nreturn y", 2),
        ("tuple[int, str]", "return 1, 2, 3", 3),
        ("tuple[int, str]", "if x: return 1, 2, 3\nreturn g(x)", None),
        ("tuple[int, ...]", "return g(x)", None),
        ("Tuple[int]", "return g(x)", None),
        ("tuple", "return g(x)", None),
        ("Optional[Tuple[int, str]]", "return g(x)", None),
        ("Iterator[tuple[int, str]]", "yield 1, 2", None),
    ],
)
def test_annotation_tells_the_length_where_no_return_shows_it(
    annotation: str, body: str, returns: int | None, tmp_path: Path
) -> None:
    names = read(tmp_path, f"def f(x) -> {annotation}:\n" + textwrap.indent(body, "    "))
    definition = found(names, "x.f").definition
    assert definition
    assert definition.returns == returns


def test_exceptions_are_those_of_the_own_body(tmp_path: Path) -> None:
    code = """
        from .z import TeError as Mine
        class Here(Exception): ...
        ERROR = ValueError()
        def f(x):
            assert x
            def g(): raise KeyError
            try: ...
            except OSError as error: raise error
            raise TypeError("x") from None
            raise NotImplementedError
            raise Mine(1)
            raise Here
            raise jax.errors.JaxError()
            raise ERROR
            raise
    """
    definition = found(read(tmp_path, code, z="class TeError(Exception): ..."), "x.f").definition
    assert definition
    own = ("AssertionError", "NotImplementedError", "TypeError")
    assert definition.raises == (*own, "jax.errors.JaxError", f"{JAX}.x.Here", f"{JAX}.z.TeError")


def test_decorators_are_told_by_where_they_come_from(tmp_path: Path) -> None:
    code = """
        @partial(jax.custom_vjp, nondiff_argnums=(1,))
        @jax.named_call
        def f(x, y): ...
    """
    definition = found(read(tmp_path, code), "x.f").definition
    assert definition
    assert definition.decorators == ("jax.custom_vjp", "jax.named_call")


PASSED = """
    class Base(nn.Module):
        def make(self, postfix, n_groups=1): ...
        def unused(self): ...
        @staticmethod
        def static(x): x.unused()
    class A(Base):
        def __call__(self, x):
            self.make("a")
            def inner(): return self.make(postfix="b", n_groups=2)
            return inner() + self.features(x)
        @classmethod
        def create(cls, *args): return cls.build(1, *args)
        @classmethod
        def build(cls, x): ...
        def hands_on(self): return jax.vmap(self.hook)
        def hook(self, x): ...
    class B(A):
        def make(self, postfix, n_groups=1): return super().make(postfix, n_groups)
    class C(Base):
        def make(self, postfix): ...
    def wrapped(f):
        def inner(hook): return hook(1, y=2)
        return inner
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x.Base.make", [Passed(0, ("n_groups", "postfix"), by="A"), Passed(1, (), by="A")]),
        ("x.B.make", [Passed(0, ("n_groups", "postfix"), by="A"), Passed(1, (), by="A")]),
        ("x.C.make", []),
        ("x.Base.unused", []),
        ("x.A.build", [Passed(1, (), is_open=True, by="A")]),
        ("x.A.hook", [Passed(0, (), is_open=True, by="A"), Passed(1, ("y",))]),
    ],
)
def test_passed_is_how_a_method_is_called(path: str, expected: list[Passed], tmp_path: Path) -> None:
    definition = found(read(tmp_path, PASSED), path).definition
    assert definition
    assert [dataclasses.replace(way, by=way.by.removeprefix(f"{JAX}.x.")) for way in definition.passed] == expected


# --- packages --------------------------------------------------------------------------------------------------------


def test_all_of_transformer_engine_for_jax_is_read_and_nothing_else(tmp_path: Path) -> None:
    files = ["jax/cpp_extensions/gemm", "jax/setup", "jax/_private", "common/utils", "common/triton/permutation"]
    others = ["pytorch/module", "debug/log"]
    names = read_names(package(tmp_path, {f"{name}.py": "def f(): ..." for name in files + others}))
    for name in files:
        leads = names.find(f"{TE}.{name.replace('/', '.')}.f")
        assert leads
        assert leads.definition, name
    assert names.unread == {f"{TE}.{name}": "no part of Transformer Engine for JAX" for name in ("debug", "pytorch")}
    assert names.find(f"{TE}.pytorch.Linear") == Found(f"{TE}.pytorch.Linear", None, is_certain=False)
    assert names.find(f"{TE}.paddle.Linear") is None


def test_module_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    names = read(tmp_path, "def f(): ...", z="def f(:")
    assert list(names.unread) == [f"{JAX}.z"]
    assert names.unread[f"{JAX}.z"].startswith(f"cannot be read by Python {platform.python_version()}; run mnist-fp8")
    assert names.find(f"{JAX}.z.f") == Found(f"{JAX}.z.f", None, is_certain=False)
    assert found(names, "x.f").is_certain


@pytest.mark.parametrize("folder", ["transformer_engine", "elsewhere"])
def test_folder_without_transformer_engine_is_refused_in_one_line(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(ConfigError, match=r"is no Transformer Engine for JAX; expected a folder transformer_engine"):
        read_names(tmp_path / folder)
