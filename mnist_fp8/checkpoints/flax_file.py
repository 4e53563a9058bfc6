"""A checkpoint in a file, as ``flax.serialization.to_bytes`` makes it: nested maps in MessagePack.

The file is walked through by the heads of its items, and what stays as it is goes from file to file as the bytes that
it is. Only a leaf that changes is read.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mnist_fp8.checkpoints import tree
from mnist_fp8.checkpoints.messagepack import Head, Items
from mnist_fp8.checkpoints.tree import Leaf, NewLeaf, Plan
from mnist_fp8.core.errors import ConfigError

_CHUNKED = "__msgpack_chunked_array__"
"""A key of the map that Flax writes for an array of more than a gigabyte."""
_BLOCK = 2**23
_ARRAY_HEAD = 512
"""Bytes that an array's shape and dtype do not exceed."""


class _Span(NamedTuple):
    """Where an item is in a file."""

    start: int
    end: int


class FlaxFile:
    """A checkpoint in MessagePack.

    Args:
        file: where it is.

    Attributes:
        leaves: what is in it.

    Raises:
        ConfigError: it is none.
        OSError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("rb") as opened:
            try:
                walk = _Walk(opened)
                walk.all_items()
            except (ValueError, LookupError, TypeError, RecursionError):
                raise ConfigError(
                    f"{file} is no checkpoint: neither a folder of Orbax nor a file of flax.serialization.to_bytes"
                ) from None
        self._spans = walk.spans
        self.leaves = {path: Leaf(walk.shapes.get(path)) for path in walk.spans}

    def report_of(self, new: Path) -> Path:
        """Where a report on a new checkpoint goes: beside it."""
        return new.with_name(f"{new.name}.migration.json")

    def read(self, path: tree.Path) -> tree.Array:
        """The array of a leaf.

        Raises:
            OSError: it cannot be read.
        """
        with self._file.open("rb") as opened:
            return self._array(opened, path)

    def _array(self, opened: BinaryIO, path: tree.Path) -> tree.Array:
        from flax.serialization import msgpack_restore  # noqa: PLC0415 - takes a second

        return np.asarray(msgpack_restore(_read(opened, self._spans[path])))

    def write(self, new: Path, plan: Plan) -> None:
        """Write a new checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        with self._file.open("rb") as old, new.open("wb") as made:
            self._write_map(_nested(plan.leaves), old, made)

    def _write_map(self, items: Mapping[str, Any], old: BinaryIO, made: BinaryIO) -> None:
        import msgpack  # noqa: PLC0415 - a command that reads no checkpoint does without

        packer = msgpack.Packer()
        made.write(packer.pack_map_header(len(items)))
        for key, item in items.items():
            made.write(packer.pack(key))
            if isinstance(item, NewLeaf):
                self._write_leaf(item, old, made)
            else:
                self._write_map(item, old, made)

    def _write_leaf(self, leaf: NewLeaf, old: BinaryIO, made: BinaryIO) -> None:
        if leaf.make is None:
            _copy(old, self._spans[leaf.sources[0]], made)
            return
        from flax.serialization import msgpack_serialize  # noqa: PLC0415 - takes a second

        arrays = [self._array(old, path) for path in leaf.sources]
        made.write(msgpack_serialize(leaf.make(*arrays)))


class _Walk:
    """Finds the leaves of a file.

    Attributes:
        spans: where each leaf is.
        shapes: of the leaves that are arrays.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._items = Items(file)
        self.spans: dict[tree.Path, _Span] = {}
        self.shapes: dict[tree.Path, tuple[int, ...]] = {}

    def all_items(self) -> None:
        """Walk through the whole file.

        Raises:
            ValueError: it is not one map in MessagePack.
        """
        if self._items.head(0).kind != "map" or self._item(0, ()) != self._items.size:
            raise ValueError("not one map")

    def _item(self, start: int, path: tree.Path) -> int:
        """Note the leaves of an item; returns where it ends."""
        head = self._items.head(start)
        if head.kind == "map" and head.items:
            keys = self._keys(head)
            if _CHUNKED not in keys:
                for key, value in keys.items():
                    end = self._item(value, (*path, key))
                return end
            self.shapes[path] = self._chunked_shape(keys["shape"])
        elif head.kind == "extension":
            self._note_shape(path, head)
        end = self._items.end(start)
        self.spans[path] = _Span(start, end)
        return end

    def _keys(self, head: Head) -> dict[str, int]:
        """Where the value of each key of a map begins."""
        keys = {}
        at = head.body
        for _ in range(head.items):
            value = self._items.end(at)
            key = self._items.value(at, value)
            if not isinstance(key, str):
                raise TypeError("a key is no text")
            keys[key] = value
            at = self._items.end(value)
        return keys

    def _chunked_shape(self, start: int) -> tuple[int, ...]:
        shape = self._items.value(start, self._items.end(start))
        return tuple(shape[str(axis)] for axis in range(len(shape)))

    def _note_shape(self, path: tree.Path, head: Head) -> None:
        """Note the shape of an array: the first of the three things that Flax's extension consists of."""
        import msgpack  # noqa: PLC0415 - a command that reads no checkpoint does without

        unpacker = msgpack.Unpacker()
        unpacker.feed(self._items.read(head.body, head.body + min(head.size, _ARRAY_HEAD)))
        if unpacker.read_array_header() == 3:  # noqa: PLR2004 - shape, dtype and bytes
            self.shapes[path] = tuple(unpacker.unpack())


def _nested(leaves: Iterable[NewLeaf]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for leaf in leaves:
        inner = root
        for key in leaf.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[leaf.path[-1]] = leaf
    return root


def _copy(old: BinaryIO, span: _Span, made: BinaryIO) -> None:
    old.seek(span.start)
    left = span.end - span.start
    while left:
        block = old.read(min(left, _BLOCK))
        if not block:
            raise OSError("the checkpoint became shorter while it was read")
        made.write(block)
        left -= len(block)


def _read(file: BinaryIO, span: _Span) -> bytes:
    return os.pread(file.fileno(), span.end - span.start, span.start)
