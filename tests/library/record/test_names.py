"""Where a dotted path leads, through aliases, packages and base classes."""

import flax.linen
import pytest

from mnist_fp8.record import names
from mnist_fp8.record.entries import Parameter, Signature
from mnist_fp8.record.names import Definition, Found, Names

TE = "transformer_engine"
JAX = f"{TE}.jax"


def module() -> Definition:
    return Definition(Signature("module"))


def cls(*bases: str) -> Definition:
    return Definition(Signature("class"), bases)


def method(*parameters: str) -> Definition:
    return Definition(Signature("method", tuple(Parameter(name, "either", None) for name in parameters)))


DEFINITIONS = {
    TE: module(),
    JAX: module(),
    f"{JAX}.dense": module(),
    f"{JAX}.dense.dense": Definition(Signature("function")),
    f"{JAX}.gemm": module(),
    f"{JAX}.gemm.gemm": Definition(Signature("function")),
    f"{JAX}.gemm.Op": cls("enum.Enum"),
    f"{JAX}.gemm.Op.NONE": Definition(Signature("member", value="1")),
    f"{JAX}.gemm.Op.is_none": method(),
    f"{JAX}.gemm.maybe": Definition(Signature("function"), is_conditional=True),
    f"{JAX}.gemm.constant": Definition(Signature("attribute", value="{}")),
    f"{JAX}.module": module(),
    f"{JAX}.module.Base": cls("flax.linen.Module"),
    f"{JAX}.module.Base.quantizers": method("postfix"),
    f"{JAX}.module.Dense": cls(f"{JAX}.module.Base"),
    f"{JAX}.module.Dense.__call__": method("x"),
    f"{JAX}.module.Plain": cls(),
    f"{JAX}.module.Left": cls(f"{JAX}.module.Plain"),
    f"{JAX}.module.Left.f": method("left"),
    f"{JAX}.module.Right": cls(f"{JAX}.module.Plain"),
    f"{JAX}.module.Right.f": method("right"),
    f"{JAX}.module.Plain.f": method("plain"),
    f"{JAX}.module.Diamond": cls(f"{JAX}.module.Left", f"{JAX}.module.Right"),
    f"{JAX}.module.Strange": cls("jax.Thing", f"{JAX}.module.Plain"),
    f"{JAX}.module.Dynamic": cls(),
    f"{JAX}.module.Round": cls(f"{JAX}.module.Trip"),
    f"{JAX}.module.Trip": cls(f"{JAX}.module.Round"),
    f"{JAX}.open": module(),
}
ALIASES = {
    f"{JAX}.Dense": f"{JAX}.flax.Dense",
    f"{JAX}.flax": f"{JAX}.module",
    f"{JAX}.gemm": f"{JAX}.gemm.gemm",
    f"{JAX}.P": "jax.sharding.PartitionSpec",
    f"{JAX}.te": TE,
    f"{JAX}.here": f"{JAX}.there",
    f"{JAX}.there": f"{JAX}.here",
    f"{JAX}.gone": f"{JAX}.dense.gone",
    f"{JAX}.tried": f"{JAX}.dense.dense",
    f"{JAX}.module.Diamond.g": f"{JAX}.module.Plain.f",
}
UNREAD = {
    f"{JAX}.open": "it makes names at run time",
    f"{JAX}.module.Dynamic": "__getattr__ makes names at run time",
    f"{JAX}.tried": "it is imported only under a condition",
    f"{TE}.pytorch": "no part of Transformer Engine for JAX",
}
NAMES = Names(DEFINITIONS, ALIASES, frozenset(), UNREAD)


@pytest.mark.parametrize(
    ("path", "expected", "owner"),
    [
        ("dense.dense", "dense.dense", ""),
        ("dense", "dense", ""),
        ("Dense", "module.Dense", ""),
        ("flax.Dense.__call__", "module.Dense.__call__", ""),
        ("Dense.quantizers", "module.Base.quantizers", "module.Base"),
        ("te.jax.te.jax.dense.dense", "dense.dense", ""),
        ("gemm", "gemm.gemm", ""),
        ("gemm.Op.NONE", "gemm.Op.NONE", ""),
        ("module.Diamond.f", "module.Left.f", "module.Left"),
        ("module.Diamond.g", "module.Plain.f", ""),
    ],
)
def test_path_leads_to_a_definition(path: str, expected: str, owner: str) -> None:
    where = f"{JAX}.{expected}"
    found = Found(where, DEFINITIONS[where], f"{JAX}.{owner}" if owner else "")
    assert NAMES.find(f"{JAX}.{path}") == found
    assert NAMES.find(f"{JAX}.{path}") is NAMES.find(f"{JAX}.{path}")


@pytest.mark.parametrize(
    "path",
    [
        f"{TE}.paddle",
        f"{JAX}.nothing",
        f"{JAX}.nothing.more",
        f"{JAX}.dense.nothing",
        f"{JAX}.gemm.Op.OTHER",
        f"{JAX}.Dense.nothing",
        f"{JAX}.module.Plain.nothing",
        f"{JAX}.module.Round.nothing",
        f"{JAX}.module.Plain.__call__",
    ],
)
def test_path_leads_nowhere(path: str) -> None:
    assert NAMES.find(path) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("jax", "jax"),
        ("transformer_engine_jax.DType", "transformer_engine_jax.DType"),
        (f"{JAX}.P", "jax.sharding.PartitionSpec"),
        (f"{JAX}.P.x", "jax.sharding.PartitionSpec.x"),
        (f"{JAX}.Dense.apply", "flax.linen.Module.apply"),
        (f"{JAX}.module.Strange.x", "jax.Thing.x"),
        (f"{JAX}.module.Plain.__name__", f"{JAX}.module.Plain.__name__"),
        (f"{JAX}.gemm.Op.__members__", "enum.Enum.__members__"),
        (f"{JAX}.gemm.Op.NONE.value", "enum.Enum.value"),
        (f"{JAX}.dense.dense.defvjp", f"{JAX}.dense.dense.defvjp"),
        (f"{JAX}.gemm.constant.items.x", f"{JAX}.gemm.constant.items.x"),
        (f"{JAX}.dense.__file__", f"{JAX}.dense.__file__"),
        (f"{JAX}.here", f"{JAX}.there"),
        (f"{JAX}.there.x", f"{JAX}.here.x"),
        (f"{JAX}.gone", f"{JAX}.dense.gone"),
        (f"{JAX}.open.x.y", f"{JAX}.open.x.y"),
        (f"{JAX}.module.Dynamic.x", f"{JAX}.module.Dynamic.x"),
        (f"{TE}.pytorch.Linear", f"{TE}.pytorch.Linear"),
    ],
)
def test_what_source_does_not_tell_is_not_certain(path: str, expected: str) -> None:
    assert NAMES.find(path) == Found(expected, None, is_certain=False)


@pytest.mark.parametrize(
    ("path", "expected", "owner"),
    [
        ("gemm.maybe", "gemm.maybe", ""),
        ("tried", "dense.dense", ""),
        ("gemm.Op.NONE.is_none", "gemm.Op.is_none", ""),
        ("module.Strange.f", "module.Plain.f", "module.Plain"),
    ],
)
def test_definition_that_may_not_be_the_one_is_not_certain(path: str, expected: str, owner: str) -> None:
    where = f"{JAX}.{expected}"
    found = Found(where, DEFINITIONS[where], f"{JAX}.{owner}" if owner else "", is_certain=False)
    assert NAMES.find(f"{JAX}.{path}") == found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Plain", ["Plain"]),
        ("Diamond", ["Diamond", "Left", "Right", "Plain"]),
        ("Round", ["Round", "Trip"]),
    ],
)
def test_base_classes_come_in_the_order_of_python(path: str, expected: list[str]) -> None:
    assert [each.rpartition(".")[2] for each in NAMES.mro(f"{JAX}.module.{path}")] == expected


def test_base_classes_from_elsewhere_keep_their_path() -> None:
    assert list(NAMES.mro(f"{JAX}.module.Strange")) == [f"{JAX}.module.Strange", "jax.Thing", f"{JAX}.module.Plain"]
    assert list(NAMES.mro("jax.Thing")) == ["jax.Thing"]


def test_names_that_nobody_wrote_by_hand_are_no_trouble() -> None:
    chain = {f"{JAX}.a{n}": f"{JAX}.a{n + 1}" for n in range(5000)}
    doubled = {f"{JAX}.C{n}": cls(f"{JAX}.C{n + 1}", f"{JAX}.C{n + 1}") for n in range(500)}
    hostile = Names({TE: module(), JAX: module(), **doubled}, chain, frozenset(), {})
    assert hostile.find(f"{JAX}.a0") == Found(f"{JAX}.a40", None, is_certain=False)
    assert hostile.find(f"{JAX}.C0.x") is None
    assert hostile.find(".".join([JAX, *["a"] * 10_000]))
    assert Names({}, {}, frozenset(), {}).find(JAX) == Found(JAX, None, is_certain=False)


def test_every_public_name_of_a_flax_module_is_known() -> None:
    public = {name for name in dir(flax.linen.Module) if not name.startswith("_")}
    assert public <= names._KNOWN_BASES["flax.linen.Module"]
