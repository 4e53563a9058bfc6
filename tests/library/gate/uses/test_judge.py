"""What becomes of a use: faults put into an API, each judged for who calls it, overrides it, or does neither."""

from pathlib import Path

import pytest

from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.gate.uses.judge import judge
from mnist_fp8.gate.uses.judgement import Judgement, Outcome
from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.record.names import Names
from support.packages import package

API = """
import dataclasses
import enum
from typing import NamedTuple

import flax.linen as nn
from jax.sharding import PartitionSpec as P

LIMIT = 448
LIMITS = {"e4m3": 448}
NAMES = list(LIMITS)


class Error(Exception):
    pass


class Kind(enum.Enum):
    ONE = enum.auto()
    TWO = enum.auto()
    THREE = enum.auto()


class State(NamedTuple):
    scale: float
    amax: float


@dataclasses.dataclass
class Config:
    margin: int = 0
    length: int = 16


class Layer(nn.Module):
    features: int = 8
    use_bias: bool = False

    def __call__(self, inputs):
        return self.quantizers("_0", scale=2)

    def quantizers(self, postfix, scale=1):
        return postfix

    def helper(self, x, y=0):
        return x

    @property
    def size(self):
        return 1

    @classmethod
    def of_size(cls, size):
        return cls(size)

    @staticmethod
    def check(size):
        return size


class Other:
    def __init__(self, x):
        self.x = x


def attend(q, k, v, mask=None, *, scale=1.0, dropout=0.0):
    if scale < 0:
        raise ValueError("scale")
    return q, k


def flexible(x, *args, **kwargs):
    return x


def register(function):
    return function


def other(x):
    return x
"""
HEAD = "from transformer_engine.jax import api\n"
BYSTANDER = f"{HEAD}api.other(1)\napi.Other(x=2).x\nclass Mine(api.Other):\n    def mine(self): ...\n"
OVERRIDER = "class Mine(api.Layer):\n    def quantizers(self, postfix, scale=3): ..."
ATTEND = "def attend(q, k, v, mask=None, *, scale=1.0, dropout=0.0):"
REST = "def rest(q, k, scale):"
"""Another function for what is left of `attend`."""
QUANTIZERS = "def quantizers(self, postfix, scale=1):"
CALLS = 'self.quantizers("_0", scale=2)'
SAME = ""


def names_of(folder: Path, api: str) -> Names:
    """The names of a Transformer Engine with this module."""
    files = {"jax/__init__.py": "from . import api\n", "jax/api.py": api, "jax/inner.py": ""}
    return read_names(package(folder, files))


def edited(*edits: str) -> str:
    """`API` with the first text of each pair replaced by the second."""
    text = API
    for before, after in zip(edits[::2], edits[1::2], strict=True):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def judged(folder: Path, user: str, old: Names, new: Names) -> tuple[Judgement, ...]:
    """What becomes of the uses in a source."""
    file = folder / "user.py"
    file.write_text(HEAD + user if HEAD not in user else user)
    found = find_uses([file])
    assert not found.unread
    assert found.uses
    return judge(found.uses, old, new)


def told(judgements: tuple[Judgement, ...]) -> str:
    """Outcome, cause and subject of each that is not as before, once."""
    lines = [
        f"{each.outcome.name} {each.cause.name if each.cause else ''} {each.subject}".strip()
        for each in judgements
        if each.outcome is not Outcome.SAME
    ]
    return "; ".join(dict.fromkeys(lines))


TE = "transformer_engine.jax"
FAULTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "required argument by name added": (
        [ATTEND, ATTEND.replace("*,", "*, bias,")],
        {
            "api.attend(1, 2, 3)": "BREAKS MISSING_ARGUMENT bias",
            "api.attend(1, 2, 3, bias=None)": "BETTER UNKNOWN_KEYWORD bias",
            "api.attend(*rest)": "BREAKS MISSING_ARGUMENT bias",
            "api.attend(1, 2, 3, **rest)": "UNKNOWN MISSING_ARGUMENT bias",
            "layer = dict(attention=api.attend)": "UNKNOWN MISSING_ARGUMENT bias",
            "import functools\nfunctools.partial(api.attend, 1)": "UNKNOWN MISSING_ARGUMENT bias",
        },
    ),
    "required argument by position added": (
        [ATTEND, ATTEND.replace("k, v", "k, bias, v")],
        {
            "api.attend(1, 2, 3)": "BREAKS MISSING_ARGUMENT bias; BREAKS MOVED_ARGUMENT v",
            "api.attend(q=1, k=2, v=3)": "BREAKS MISSING_ARGUMENT bias",
        },
    ),
    "optional argument added": (
        [ATTEND, ATTEND.replace("0.0)", "0.0, bias=None)")],
        {"api.attend(1, 2, 3)": SAME, "api.attend(*rest, **more)": SAME, "api.attend.__name__": SAME},
    ),
    "optional argument added before others": (
        [ATTEND, ATTEND.replace("mask=", "bias=None, mask=")],
        {
            "api.attend(1, 2, 3, 4)": "BREAKS MOVED_ARGUMENT mask",
            "api.attend(1, 2, 3, mask=4)": SAME,
            "api.attend(1, 2, 3, *rest)": "UNKNOWN MOVED_ARGUMENT mask",
        },
    ),
    "argument removed": (
        [ATTEND, ATTEND.replace(", dropout=0.0", "")],
        {
            "api.attend(1, 2, 3, dropout=0.1)": "BREAKS UNKNOWN_KEYWORD dropout",
            "api.attend(1, 2, 3)": SAME,
            "api.attend(1, 2, 3, **rest)": "UNKNOWN UNKNOWN_KEYWORD dropout",
            "import functools\nfunctools.partial(api.attend, dropout=0.1)": "BREAKS UNKNOWN_KEYWORD dropout",
            "try:\n    api.attend(1, 2, 3, dropout=0.1)\nexcept TypeError:\n    pass": (
                "GUARDED UNKNOWN_KEYWORD dropout"
            ),
            "try:\n    api.attend(1, 2, 3, dropout=0.1)\nexcept ImportError:\n    pass": (
                "BREAKS UNKNOWN_KEYWORD dropout"
            ),
        },
    ),
    "argument renamed": (
        [ATTEND, ATTEND.replace("mask=", "masks=")],
        {"api.attend(1, 2, 3, mask=4)": "BREAKS UNKNOWN_KEYWORD mask", "api.attend(1, 2, 3, 4)": SAME},
    ),
    "needed argument renamed": (
        [ATTEND, ATTEND.replace("k, v", "key, v")],
        {"api.attend(1, k=2, v=3)": "BREAKS UNKNOWN_KEYWORD k", "api.attend(1, 2, 3)": SAME},
    ),
    "arguments swapped": (
        [ATTEND, ATTEND.replace("k, v", "v, k")],
        {
            "api.attend(1, 2, 3)": "BREAKS MOVED_ARGUMENT k; BREAKS MOVED_ARGUMENT v",
            "api.attend(1, k=2, v=3)": SAME,
            "api.attend(1)": "BROKEN_ALREADY MISSING_ARGUMENT v; BROKEN_ALREADY MISSING_ARGUMENT k",
        },
    ),
    "argument made keyword-only": (
        [ATTEND, ATTEND.replace("mask=None, *", "*, mask=None")],
        {"api.attend(1, 2, 3, 4)": "BREAKS TOO_MANY_POSITIONAL mask", "api.attend(1, 2, 3, mask=4)": SAME},
    ),
    "argument made positional-only": (
        [ATTEND, ATTEND.replace("q, k", "q, /, k")],
        {"api.attend(q=1, k=2, v=3)": "BREAKS UNKNOWN_KEYWORD q", "api.attend(1, 2, 3)": SAME},
    ),
    "argument can be given by position": (
        [ATTEND, ATTEND.replace(" *,", "")],
        {"api.attend(1, 2, 3, scale=2)": SAME, "api.attend(1, 2, 3, 4, 5)": "BETTER TOO_MANY_POSITIONAL scale"},
    ),
    "default changed": (
        [ATTEND, ATTEND.replace("scale=1.0", "scale=None")],
        {
            "api.attend(1, 2, 3)": "CHANGES DEFAULT scale",
            "api.attend(1, 2, 3, scale=1.0)": SAME,
            "try:\n    api.attend(1, 2, 3)\nexcept TypeError:\n    pass": "CHANGES DEFAULT scale",
        },
    ),
    "default removed": (
        [ATTEND, ATTEND.replace("mask=None", "mask")],
        {"api.attend(1, 2, 3)": "BREAKS MISSING_ARGUMENT mask", "api.attend(1, 2, 3, 4)": SAME},
    ),
    "argument goes to **kwargs": (
        [ATTEND, ATTEND.replace("dropout=0.0", "**kwargs")],
        {"api.attend(1, 2, 3, dropout=0.1)": SAME, "api.attend(1, 2, 3, **rest)": SAME},
    ),
    "*args removed": (
        ["def flexible(x, *args, **kwargs)", "def flexible(x, **kwargs)"],
        {
            "api.flexible(1, 2)": "BREAKS TOO_MANY_POSITIONAL",
            "api.flexible(1, y=2)": SAME,
            "api.flexible(*rest)": "UNKNOWN TOO_MANY_POSITIONAL",
        },
    ),
    "**kwargs removed": (
        ["def flexible(x, *args, **kwargs)", "def flexible(x, *args)"],
        {
            "api.flexible(1, y=2)": "BREAKS UNKNOWN_KEYWORD y",
            "api.flexible(1, 2)": SAME,
            "api.flexible(**rest)": "UNKNOWN UNKNOWN_KEYWORD **",
        },
    ),
    "function gone": (
        [ATTEND, "def attend_forward(q):"],
        {
            "api.attend(1, 2, 3)": f"BREAKS NAME_GONE {TE}.api.attend",
            f"from {TE}.api import attend": f"BREAKS NAME_GONE {TE}.api.attend",
            "getattr(api, 'attend')": f"BREAKS NAME_GONE {TE}.api.attend",
            f"PATCHED = '{TE}.api.attend'": f"BREAKS NAME_GONE {TE}.api.attend",
            "def f():\n    return api.attend": f"BREAKS NAME_GONE {TE}.api.attend",
            f"try:\n    from {TE}.api import attend as f\nexcept ImportError:\n    f = None\nif f:\n    f(1)": (
                f"GUARDED NAME_GONE {TE}.api.attend"
            ),
            "try:\n    api.attend(1, 2, 3)\nexcept AttributeError:\n    pass": f"GUARDED NAME_GONE {TE}.api.attend",
            "try:\n    api.attend(1, 2, 3)\nexcept TypeError:\n    pass": f"BREAKS NAME_GONE {TE}.api.attend",
            "if hasattr(api, 'attend'):\n    api.attend(1, 2, 3)": f"GUARDED NAME_GONE {TE}.api.attend",
        },
    ),
    "function under a condition": (
        [ATTEND, f"if LIMIT:\n    def attend(q): ...\nelse:\n    {ATTEND}\n        return q, k\n\n\n{REST}"],
        {"api.attend(1, 2, 3)": "UNKNOWN NOT_READ", f"from {TE}.api import attend": "UNKNOWN NOT_READ"},
    ),
    "names made at run time": (
        [*("LIMIT = 448", "LIMIT = 448\n\n\ndef __getattr__(name):\n    return name"), ATTEND, REST],
        {"api.attend(1, 2, 3)": "UNKNOWN NOT_READ", f"from {TE}.api import attend": "UNKNOWN NOT_READ"},
    ),
    "function became a class": (
        [ATTEND, f"class attend:\n    def __init__(self, q, k, v, mask=None): ...\n\n\n{REST}"],
        {
            "api.attend(1, 2, 3)": "CHANGES KIND",
            "api.attend(1, 2, 3, scale=4)": "BREAKS UNKNOWN_KEYWORD scale",
            f"from {TE}.api import attend": SAME,
        },
    ),
    "class became a function": (
        ["class Layer(nn.Module):", "def Layer(features=8): ...\n\n\nclass Layers(nn.Module):"],
        {
            "api.Layer(features=8)": "CHANGES KIND",
            "class Mine(api.Layer): ...": "BREAKS KIND",
            "isinstance(1, api.Layer)": "BREAKS KIND",
        },
    ),
    "function became a module": (
        [ATTEND, f"from {TE} import inner as attend\n\n\n{REST}"],
        {"api.attend(1, 2, 3)": "BREAKS KIND"},
    ),
    "class split": (
        ["    def helper(self, x, y=0):", "\n\nclass Helper(nn.Module):\n    def helper(self, x, y=0):"],
        {
            "api.Layer().helper(1)": f"BREAKS NAME_GONE {TE}.api.Layer.helper",
            "api.Layer(features=1)": SAME,
            "class Mine(api.Layer):\n    def f(self):\n        return self.helper(1)": (
                f"BREAKS NAME_GONE {TE}.api.Layer.helper"
            ),
            "class Mine(api.Layer):\n    def helper(self, x, y=0): ...": "CHANGES HOOK_GONE",
        },
    ),
    "method moved to a base class": (
        [
            *(
                "class Layer(nn.Module):",
                "class Base(nn.Module):\n    def helper(self, x, y=0): ...\n\n\nclass Layer(Base):",
            ),
            *("    def helper(self, x, y=0):\n        return x\n", ""),
        ],
        {"api.Layer().helper(1)": SAME, "class Mine(api.Layer):\n    def helper(self, x, y=0): ...": SAME},
    ),
    "method renamed": (
        ["def helper(", "def assist("],
        {"api.Layer().helper(1)": f"BREAKS NAME_GONE {TE}.api.Layer.helper"},
    ),
    "argument of a method removed": (
        ["def helper(self, x, y=0)", "def helper(self, x)"],
        {
            "api.Layer().helper(1, y=2)": "BREAKS UNKNOWN_KEYWORD y",
            "api.Layer.helper(api.Layer(), 1)": SAME,
            "api.Layer.helper(api.Layer(), 1, 2)": "BREAKS TOO_MANY_POSITIONAL",
            "class Mine(api.Layer):\n    def helper(self, x, y=0):\n        return super().helper(x, y)": (
                "BREAKS TOO_MANY_POSITIONAL"
            ),
        },
    ),
    "method became a property": (
        ["    def helper(self, x, y=0):", "    @property\n    def helper(self):"],
        {
            "api.Layer().helper(1)": "BREAKS KIND",
            "f = api.Layer().helper": "BREAKS KIND",
            "class Mine(api.Layer):\n    def helper(self, x, y=0): ...": "BREAKS KIND",
        },
    ),
    "property became a method": (
        ["    @property\n    def size", "    def size"],
        {"x = api.Layer().size + 1": "BREAKS KIND", "api.Layer(features=1)": SAME},
    ),
    "class method became static": (
        [
            "    @classmethod\n    def of_size(cls, size):\n        return cls(size)",
            "    @staticmethod\n    def of_size(size): ...",
        ],
        {"api.Layer.of_size(1)": SAME},
    ),
    "class method needs an instance": (
        ["    @classmethod\n    def of_size(cls, size):\n        return cls(size)", "    def of_size(self, size): ..."],
        {
            "api.Layer.of_size(1)": "BREAKS MISSING_ARGUMENT self; BREAKS MOVED_ARGUMENT size",
            "api.Layer().of_size(1)": SAME,
        },
    ),
    "static method got a needed argument": (
        ["def check(size)", "def check(size, strict)"],
        {"api.Layer.check(1)": "BREAKS MISSING_ARGUMENT strict"},
    ),
    "argument newly passed to an override": (
        [QUANTIZERS, QUANTIZERS.replace("scale=1", "scale=1, groups=1"), CALLS, CALLS.replace("scale=2", "groups=2")],
        {
            OVERRIDER: "BREAKS OVERRIDE_ARGUMENT groups",
            OVERRIDER.replace("scale=3", "scale=3, groups=1"): SAME,
            OVERRIDER.replace("scale=3", "**kwargs"): SAME,
            "class Mine(api.Layer):\n    def quantizers(self): ...": (
                "BROKEN_ALREADY OVERRIDE_ARGUMENT postfix; BROKEN_ALREADY OVERRIDE_ARGUMENT groups"
            ),
            "api.Layer().quantizers('_0', scale=2)": SAME,
        },
    ),
    "one argument more by position passed to an override": (
        [QUANTIZERS, QUANTIZERS.replace("scale=1", "more=0, scale=1"), CALLS, CALLS.replace('"_0"', '"_0", 1')],
        {OVERRIDER: "BREAKS OVERRIDE_ARGUMENT more", "api.Layer().quantizers('_0', 1)": "BREAKS MOVED_ARGUMENT scale"},
    ),
    "argument that an override needs is no longer passed": (
        [CALLS, "self.quantizers(scale=2)", QUANTIZERS, QUANTIZERS.replace("postfix", "postfix=''")],
        {OVERRIDER: "BREAKS MISSING_ARGUMENT postfix", "api.Layer().quantizers('_0')": SAME},
    ),
    "overridden method is no longer called": (
        [CALLS, "inputs"],
        {OVERRIDER: "BREAKS HOOK_GONE", "api.Layer().quantizers('_0')": SAME},
    ),
    "overridden method is gone": (
        [QUANTIZERS, "def sets(self, postfix, scale=1):", CALLS, CALLS.replace("quantizers", "sets")],
        {OVERRIDER: "BREAKS HOOK_GONE", "api.Layer().quantizers('_0')": f"BREAKS NAME_GONE {TE}.api.Layer.quantizers"},
    ),
    "base class changed": (
        ["class Layer(nn.Module):", "class Layer(Other):"],
        {
            OVERRIDER: "BREAKS BASE flax.linen.Module",
            "api.Layer(features=1)": "BREAKS UNKNOWN_KEYWORD features",
        },
    ),
    "base class added": (
        ["class Layer(nn.Module):", "class Base(nn.Module): ...\n\n\nclass Layer(Base):"],
        {OVERRIDER: SAME, "api.Layer(features=1)": SAME},
    ),
    "needed field added to a module": (
        ["    features: int = 8\n", "    kind: Kind\n    features: int = 8\n"],
        {
            "api.Layer(features=1)": "BREAKS MISSING_ARGUMENT kind",
            OVERRIDER: "UNKNOWN MISSING_ARGUMENT kind",
            "api.Layer(features=1, name='x')": "BREAKS MISSING_ARGUMENT kind",
            "import functools\nfunctools.partial(api.Layer, features=1)": "UNKNOWN MISSING_ARGUMENT kind",
            "api.Layer(*rest)": "; ".join(
                [
                    "UNKNOWN MISSING_ARGUMENT kind",
                    *(f"UNKNOWN MOVED_ARGUMENT {name}" for name in ("features", "use_bias", "parent", "name")),
                ]
            ),
        },
    ),
    "field of a module renamed": (
        ["    use_bias: bool = False\n", "    with_bias: bool = False\n"],
        {
            "api.Layer(use_bias=True)": "BREAKS UNKNOWN_KEYWORD use_bias",
            "api.Layer().use_bias": f"BREAKS NAME_GONE {TE}.api.Layer.use_bias",
            "class Mine(api.Layer):\n    def f(self):\n        return self.use_bias": (
                f"UNKNOWN UNKNOWN_KEYWORD use_bias; BREAKS NAME_GONE {TE}.api.Layer.use_bias"
            ),
        },
    ),
    "field of a dataclass removed": (
        ["    length: int = 16\n", ""],
        {
            "api.Config(length=1)": "BREAKS UNKNOWN_KEYWORD length",
            "api.Config(1, 2)": "BREAKS TOO_MANY_POSITIONAL",
            "api.Config().length": f"BREAKS NAME_GONE {TE}.api.Config.length",
            "api.Config(1).margin": SAME,
        },
    ),
    "field of a named tuple added": (
        ["    amax: float\n", "    amax: float\n    margin: float\n"],
        {"api.State(1.0, 2.0)": "BREAKS MISSING_ARGUMENT margin", "api.State": "UNKNOWN MISSING_ARGUMENT margin"},
    ),
    "enumeration reordered": (
        ["    ONE = enum.auto()\n    TWO = enum.auto()\n", "    TWO = enum.auto()\n    ONE = enum.auto()\n"],
        {"api.Kind.ONE": "CHANGES MEMBER ONE", "api.Kind.THREE": SAME},
    ),
    "member of an enumeration gone": (
        ["    THREE = enum.auto()\n", ""],
        {"api.Kind.THREE": f"BREAKS MEMBER {TE}.api.Kind.THREE", "api.Kind.ONE": SAME},
    ),
    "member of an enumeration added": (
        ["    THREE = enum.auto()\n", "    THREE = enum.auto()\n    FOUR = enum.auto()\n"],
        {"api.Kind.THREE": SAME, "api.Kind.ONE": SAME},
    ),
    "return value with one element more": (
        ["return q, k\n", "return q, k, v\n"],
        {
            "a, b = api.attend(1, 2, 3)": "BREAKS RETURNS",
            "a = api.attend(1, 2, 3)": "CHANGES RETURNS",
            "a, b, c = api.attend(1, 2, 3)": "BETTER RETURNS",
        },
    ),
    "return value that cannot be counted": (
        ["return q, k\n", "return other(q)\n"],
        {"a, b = api.attend(1, 2, 3)": "UNKNOWN RETURNS"},
    ),
    "exception no longer raised": (
        ['raise ValueError("scale")', 'raise KeyError("scale")'],
        {
            "try:\n    api.attend(1, 2, 3)\nexcept ValueError:\n    pass": "CHANGES EXCEPTION ValueError",
            "api.attend(1, 2, 3)": SAME,
        },
    ),
    "exception gone": (
        ["class Error(Exception)", "class Failure(Exception)"],
        {"try:\n    api.other(1)\nexcept api.Error:\n    pass": f"BREAKS NAME_GONE {TE}.api.Error"},
    ),
    "constant changed": (["LIMIT = 448", "LIMIT = 240"], {"x = api.LIMIT": "CHANGES VALUE", "api.other(1)": SAME}),
    "constant computed otherwise": (
        ["NAMES = list(LIMITS)", "NAMES = [*LIMITS]"],
        {"x = api.NAMES": SAME, "api.NAMES()": SAME},
    ),
    "constant computed": (["LIMIT = 448", "LIMIT = len(LIMITS)"], {"x = api.LIMIT": "CHANGES VALUE"}),
    "constant gone": (["LIMIT = 448", "MOST = 448"], {"x = api.LIMIT": f"BREAKS NAME_GONE {TE}.api.LIMIT"}),
    "name from elsewhere gone": (
        ["from jax.sharding import PartitionSpec as P\n", ""],
        {f"from {TE}.api import P": f"BREAKS NAME_GONE {TE}.api.P", "api.P('a')": f"BREAKS NAME_GONE {TE}.api.P"},
    ),
    "name from elsewhere comes from there": (
        ["from jax.sharding import PartitionSpec as P\n", "from jax.interpreters.pxla import PartitionSpec as P\n"],
        {"api.P('a')": "UNKNOWN NOT_READ"},
    ),
    "decorator needs arguments": (
        ["def register(function):", "def register(*, name):"],
        {
            "@api.register\ndef f(): ...": "BREAKS TOO_MANY_POSITIONAL name; BREAKS MISSING_ARGUMENT name",
            "@api.register(name='f')\ndef f(): ...": "BETTER UNKNOWN_KEYWORD name; BETTER MISSING_ARGUMENT function",
        },
    ),
    "decorator takes no more arguments": (
        ["def flexible(x, *args, **kwargs):", "def flexible(x):"],
        {"@api.flexible\ndef f(): ...": SAME, "@api.flexible(1, z=2)\ndef f(): ...": "BREAKS UNKNOWN_KEYWORD z"},
    ),
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Names:
    return names_of(tmp_path_factory.mktemp("old"), API)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Names:
    return names_of(tmp_path_factory.mktemp("new"), edited(*FAULTS[request.param][0]))


@pytest.mark.parametrize(
    ("new", "user", "expected"),
    [(fault, user, expected) for fault, (_, users) in FAULTS.items() for user, expected in users.items()],
    indirect=["new"],
)
def test_fault_is_judged_for_who_uses_it(tmp_path: Path, old: Names, new: Names, user: str, expected: str) -> None:
    assert told(judged(tmp_path, user, old, new)) == expected


@pytest.mark.parametrize("new", FAULTS, indirect=True)
def test_fault_is_nothing_for_who_uses_nothing_of_it(tmp_path: Path, old: Names, new: Names) -> None:
    assert told(judged(tmp_path, BYSTANDER, old, new)) == SAME


@pytest.mark.parametrize("fault", FAULTS)
def test_release_against_itself_changes_nothing(tmp_path: Path, old: Names, fault: str) -> None:
    for user in FAULTS[fault][1]:
        outcomes = {each.outcome for each in judged(tmp_path, user, old, old)}
        assert outcomes <= {Outcome.SAME, Outcome.BROKEN_ALREADY, Outcome.GUARDED}, user
