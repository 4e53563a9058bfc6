"""Where the items of a MessagePack file begin and end, found by their heads: nothing else of it is read."""

import os
from typing import Any, BinaryIO, NamedTuple

_HEAD = 9
"""Bytes that the head of an item does not exceed."""

_BODIES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8} | {
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
"""Bytes after the first one: of nil, false and true, of floats and of integers."""
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes of the length of binary data and texts."""
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
"""Bytes of extensions after their type."""
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
"""Bytes of the length of other extensions, which their type follows."""
_MAPS = {0xDE: 2, 0xDF: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_UNUSED = 0xC1


class Head(NamedTuple):
    """The beginning of an item.

    Attributes:
        kind: ``map``, ``array``, ``extension`` or ``plain``.
        body: where what follows the head begins.
        items: of an array, or pairs of a map.
        size: bytes of the body, of what is neither.
    """

    kind: str
    body: int
    items: int = 0
    size: int = 0


class Items:
    """The items of a file.

    Args:
        file: opened for reading.

    Attributes:
        size: of the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()
        self.size = os.fstat(self._number).st_size

    def head(self, start: int) -> Head:
        """Head of the item that begins at a place.

        Raises:
            ValueError: there is none, or the file ends within it.
        """
        head = _head(self.read(start, start + _HEAD), start)
        if head.body + head.size > self.size:
            raise ValueError("the file ends within an item")
        return head

    def end(self, start: int) -> int:
        """Where an item ends.

        Raises:
            ValueError: as `head`.
        """
        head = self.head(start)
        at = head.body + head.size
        for _ in range(head.items * (2 if head.kind == "map" else 1)):
            at = self.end(at)
        return at

    def read(self, start: int, end: int) -> bytes:
        """The bytes from a place to another, or to the end of the file."""
        return os.pread(self._number, end - start, start)

    def value(self, start: int, end: int) -> Any:  # noqa: ANN401
        """What an item says.

        Raises:
            ValueError: it is damaged.
        """
        import msgpack  # noqa: PLC0415 - a command that reads no checkpoint does without

        return msgpack.unpackb(self.read(start, end), raw=False)


def _head(found: bytes, start: int) -> Head:
    if not found or found[0] == _UNUSED:
        raise ValueError("not MessagePack")
    first, after = found[0], start + 1
    if first in _BODIES:
        return Head("plain", after, size=_BODIES[first])
    if first in _FIXED_EXTENSIONS:
        return Head("extension", after + 1, size=_FIXED_EXTENSIONS[first])
    return _sized_head(found, after) or _short_head(first, after)


def _sized_head(found: bytes, after: int) -> Head | None:
    """A head with a number after its first byte, if it is one."""
    for table in (_SIZED, _EXTENSIONS, _MAPS, _ARRAYS):
        width = table.get(found[0])
        if width:
            number, body = int.from_bytes(found[1 : 1 + width]), after + width
            if table is _SIZED:
                return Head("plain", body, size=number)
            if table is _EXTENSIONS:
                return Head("extension", body + 1, size=number)
            return Head("map" if table is _MAPS else "array", body, items=number)
    return None


def _short_head(first: int, after: int) -> Head:
    """A head of one byte, which has the number in it."""
    for begin, end, kind in ((0x80, 0x90, "map"), (0x90, 0xA0, "array")):
        if begin <= first < end:
            return Head(kind, after, items=first - begin)
    return Head("plain", after, size=first - 0xA0 if 0xA0 <= first < 0xC0 else 0)  # noqa: PLR2004 - a text, or an integer
