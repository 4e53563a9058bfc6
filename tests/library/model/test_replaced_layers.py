"""Which layers one program calls and another does not, as far as their names say."""

import pytest

from mnist_fp8.model.layers import lacking
from mnist_fp8.te.calls import Site


def sites(*names: str) -> list[Site]:
    """Sites in modules, or on lines where a name has a colon."""
    return [Site("dense", "" if ":" in name else name, name if ":" in name else "ours.py:1", ()) for name in names]


@pytest.mark.parametrize(
    ("known", "found", "lost"),
    [
        (sites("mlp/up", "mlp/down"), sites("mlp/up", "mlp/down", "head"), []),
        (sites("mlp/up", "mlp/down"), sites("mlp/up"), ["mlp/down"]),
        (sites("mlp/up"), sites("model/mlp/up"), []),  # another module is around it in one of the programs
        (sites("model/mlp/up"), sites("mlp/up"), []),
        (sites("up"), sites("gate_up"), ["up"]),
        (sites("a.py:1", "a.py:2"), sites("step.py:7", "step.py:9", "step.py:9"), []),
        (sites("a.py:1", "a.py:2"), sites("a.py:1", "a.py:1"), ["a.py:2"]),
        (sites("up", "a.py:1"), sites("up"), ["a.py:1"]),
    ],
)
def test_layers_that_another_program_lacks(known: list[Site], found: list[Site], lost: list[str]) -> None:
    assert [site.module or site.place for site in lacking(known, found)] == lost
