"""Items are found where MessagePack itself finds them."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import example, given

from mnist_fp8.checkpoints.messagepack import Items

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=300))
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20), max_leaves=30
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("messagepack") / "file"


@given(first=VALUES, second=VALUES)
@example(first="a" * 70_000, second=b"a" * 70_000)
@example(first=msgpack.ExtType(1, b"a" * 70_000), second=list(range(70_000)))
@example(first={str(key): key for key in range(70_000)}, second=1.0)
def test_an_item_ends_where_the_next_begins(file: Path, first: Any, second: Any) -> None:
    whole = msgpack.packb(first)
    file.write_bytes(whole + msgpack.packb(second))
    with file.open("rb") as opened:
        items = Items(opened)
        assert items.end(0) == len(whole)
        assert items.value(0, len(whole)) == first
        assert items.end(len(whole)) == items.size


@given(value=VALUES, kept=st.floats(0, 1, exclude_max=True))
def test_an_item_that_is_cut_off_is_none(file: Path, value: Any, kept: float) -> None:
    whole = msgpack.packb(value)
    file.write_bytes(whole[: int(len(whole) * kept)])
    with file.open("rb") as opened, pytest.raises(ValueError, match=r"the file ends|not MessagePack"):
        Items(opened).end(0)
