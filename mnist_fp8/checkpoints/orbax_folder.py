"""A checkpoint in a folder, as Orbax writes it: each leaf is a Zarr array in one key-value store.

Leaves that stay as they are go from store to store as the compressed chunks that they are, so that they cannot change,
and no more than some chunks are in memory. What Orbax notes of the leaves is in JSON files beside, by their names.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_fp8.checkpoints import tree
from mnist_fp8.checkpoints.tree import Array, Leaf, NewLeaf, Plan
from mnist_fp8.core.errors import ConfigError

if TYPE_CHECKING:
    import tensorstore as ts

REPORT = "migration.json"

_TREE, _SHARDINGS, _ARRAYS = "_METADATA", "_sharding", "array_metadatas"
_DICTIONARY_KEY = 2
"""How Orbax notes that a key is one of a dictionary."""
_BATCH = 64 * 2**20
"""Bytes that are written at a time; many small leaves go together."""


class OrbaxFolder:
    """A checkpoint of Orbax.

    Args:
        folder: where it is; its arrays are in it, not in a folder of an item below.

    Attributes:
        leaves: what is in it.

    Raises:
        ConfigError: it is no checkpoint of Orbax, or one that this cannot read.
        OSError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes = _notes(folder)
        self._values = _opened(folder, ocdbt=self._notes.get("use_ocdbt", False))
        self._entries = {_path(entry): entry for entry in self._notes["tree_metadata"].values()}
        self._chunks = self._chunks_of({_name(path): path for path in self._entries})
        self.leaves = {path: Leaf(self._shape(path)) for path in self._entries}

    def report_of(self, new: Path) -> Path:
        """Where a report on a new checkpoint goes: into it."""
        return new / REPORT

    def read(self, path: tree.Path) -> Array:
        """The array of a leaf.

        Raises:
            OSError: it cannot be read.
        """
        array: Array = self._array(path).read().result()
        return array

    def write(self, new: Path, plan: Plan) -> None:
        """Write a new checkpoint.

        Raises:
            OSError: it cannot be written.
        """
        new.mkdir()
        self._copy_other_files(new)
        writes = _Writes(_opened(new, ocdbt=self._notes.get("use_ocdbt", False)))
        for leaf in plan.leaves:
            for ending, value in self._encoded(leaf, leaf.make) if leaf.make else self._kept(leaf):
                writes.add(_name(leaf.path) + ending, value)
        writes.end()
        self._write_notes(new, plan)

    def _kept(self, leaf: NewLeaf) -> Iterator[tuple[str, bytes]]:
        """What the store has of a leaf that stays as it is, by the ends of its keys."""
        old = leaf.sources[0]
        for key in self._chunks.get(old, ()):
            yield key.removeprefix(_name(old)), self._values.read(key).result().value

    def _chunks_of(self, names: Mapping[str, tree.Path]) -> dict[tree.Path, list[str]]:
        """The keys of each leaf's array in the store. A name may contain a slash, and be the beginning of another."""
        found: dict[tree.Path, list[str]] = {}
        for key in (raw.decode() for raw in self._values.list().result()):
            name = key
            while name and name not in names:
                name = name.rpartition("/")[0]
            if name:
                found.setdefault(names[name], []).append(key)
        return found

    def _shape(self, path: tree.Path) -> tuple[int, ...] | None:
        """Shape of a leaf's array; none of what Orbax keeps without one."""
        for key in self._chunks.get(path, ()):
            if key.endswith(("/.zarray", "/zarr.json")):
                return tuple(json.loads(self._values.read(key).result().value)["shape"])
        kind = self._entries[path]["value_metadata"]["value_type"]
        if kind in ("jax.Array", "np.ndarray", "scalar"):
            raise ConfigError(f"{tree.text_of(path)} is not in {self._folder}: the checkpoint is not complete")
        return None

    def _array(self, path: tree.Path) -> "ts.TensorStore":
        import tensorstore as ts  # noqa: PLC0415 - a command that reads no checkpoint does without

        return ts.open(
            {"driver": self._driver, "kvstore": (self._values / f"{_name(path)}/").spec().to_json()}, open=True
        ).result()

    @property
    def _driver(self) -> str:
        return "zarr3" if self._notes.get("use_zarr3") else "zarr"

    def _encoded(self, leaf: NewLeaf, make: Callable[..., Array]) -> Iterator[tuple[str, bytes]]:
        """What the store is to have of a leaf that changes: one chunk, in the dtype and the codec that it had.

        It is encoded apart: a store that is written to leaf by leaf keeps what it was after each of them.
        """
        import tensorstore as ts  # noqa: PLC0415

        stored = [self._array(path) for path in leaf.sources]
        array, old = make(*(each.read().result() for each in stored)), stored[0]
        apart, memory = ts.Context(), {"driver": "memory"}
        new = ts.open(
            {"driver": self._driver, "kvstore": memory, "store_data_equal_to_fill_value": True},
            context=apart,
            create=True,
            dtype=old.dtype,
            shape=array.shape,
            codec=old.codec if old.rank == array.ndim else None,
            chunk_layout=ts.ChunkLayout(chunk_shape=array.shape),
        ).result()
        new.write(array).result()
        encoded = ts.KvStore.open(memory, context=apart).result()
        for key in encoded.list().result():
            yield f"/{key.decode()}", encoded.read(key).result().value

    def _copy_other_files(self, new: Path) -> None:
        """Copy what is neither an array nor written anew."""
        arrays = {_name(path).partition("/")[0] for path in self._entries}
        for entry in self._folder.iterdir():
            if entry.name in {"manifest.ocdbt", "d", _TREE, _SHARDINGS, _ARRAYS, REPORT} | arrays:
                continue
            if entry.name.startswith("ocdbt"):
                continue
            (shutil.copytree if entry.is_dir() else shutil.copy2)(entry, new / entry.name)

    def _write_notes(self, new: Path, plan: Plan) -> None:
        """Write what Orbax notes of each leaf, under the new names."""
        entries = (self._entry(leaf) for leaf in plan.leaves)
        notes = self._notes | {"tree_metadata": {str(_path(entry)): entry for entry in entries}}
        (new / _TREE).write_text(json.dumps(notes))
        shardings = self._folder / _SHARDINGS
        if shardings.exists():
            (new / _SHARDINGS).write_text(json.dumps(_shardings(json.loads(shardings.read_text()), plan)))
        for file in sorted((self._folder / _ARRAYS).glob("*")):
            (new / _ARRAYS).mkdir(exist_ok=True)
            (new / _ARRAYS / file.name).write_text(json.dumps(_arrays(json.loads(file.read_text()), plan)))

    def _entry(self, leaf: NewLeaf) -> dict[str, Any]:
        """What Orbax notes of a new leaf."""
        old = self._entries[leaf.sources[0]]
        kinds = [key["key_type"] for key in old["key_metadata"]] + [_DICTIONARY_KEY]
        keys = [{"key": key, "key_type": kind} for key, kind in zip(leaf.path, kinds, strict=False)]
        value = dict(old["value_metadata"])
        if "write_shape" in value and leaf.make:
            value["write_shape"] = list(leaf.shape or ())
        return {"key_metadata": keys, "value_metadata": value}


class _Writes:
    """Writes to a store, in batches: it keeps what it was before each of them."""

    def __init__(self, values: "ts.KvStore") -> None:
        self._values = values
        self._begin()

    def _begin(self) -> None:
        import tensorstore as ts  # noqa: PLC0415

        self._batch, self._bytes = ts.Transaction(), 0

    def add(self, key: str, value: bytes) -> None:
        """Write a value now or with those that follow."""
        if self._bytes + len(value) > _BATCH:
            self.end()
            self._begin()
        self._values.with_transaction(self._batch).write(key, value).result()
        self._bytes += len(value)

    def end(self) -> None:
        """Write what is left."""
        self._batch.commit_sync()


def _notes(folder: Path) -> dict[str, Any]:
    """What Orbax notes of a checkpoint's tree."""
    file = folder / _TREE
    if not file.exists():
        items = sorted(below.parent.name for below in folder.glob(f"*/{_TREE}"))
        hint = f"; name one of its items, such as {folder / items[0]}" if items else ""
        raise ConfigError(f"{folder} is no checkpoint of Orbax: it has no file {_TREE}{hint}")
    try:
        notes: dict[str, Any] = json.loads(file.read_text())
        known = bool(notes["tree_metadata"]) and not notes.get("value_metadata_tree")
    except (ValueError, LookupError):
        raise ConfigError(f"{file} cannot be read: the checkpoint is damaged") from None
    if not known:
        raise ConfigError(f"{folder} is in a form of Orbax that migrate does not read: save it by StandardCheckpointer")
    return notes


def _opened(folder: Path, *, ocdbt: bool) -> "ts.KvStore":
    import tensorstore as ts  # noqa: PLC0415

    files = {"driver": "file", "path": f"{folder.resolve()}/"}
    return ts.KvStore.open({"driver": "ocdbt", "base": files} if ocdbt else files).result()


def _path(entry: Mapping[str, Any]) -> tree.Path:
    return tuple(str(key["key"]) for key in entry["key_metadata"])


def _name(path: tree.Path) -> str:
    """Name of a leaf in the store."""
    return ".".join(path)


def _new_leaves(plan: Plan) -> dict[str, NewLeaf]:
    """New leaves by the name of the one that each goes on from."""
    return {_name(leaf.sources[0]): leaf for leaf in plan.leaves}


def _shardings(old: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """How each leaf was divided among devices."""
    leaves = _new_leaves(plan)
    new = {}
    for coded, sharding in old.items():
        leaf = leaves.get(base64.b64decode(coded).decode())
        if leaf:
            name = base64.b64encode(_name(leaf.path).encode()).decode()
            new[name] = _whole(sharding) if leaf.make else sharding
    return new


def _whole(sharding: str) -> str:
    """The same devices, each with the whole array: how one of another shape would be divided is not known."""
    document = json.loads(sharding)
    if "partition_spec" in document:
        document["partition_spec"] = []
    return json.dumps(document)


def _arrays(old: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """What is noted of each array."""
    leaves = _new_leaves(plan)
    new = []
    for noted in old["array_metadatas"]:
        array = dict(noted["array_metadata"])
        leaf = leaves.get(array["param_name"])
        if leaf:
            array["param_name"] = _name(leaf.path)
            if leaf.make:
                array |= {"write_shape": list(leaf.shape or ()), "chunk_shape": list(leaf.shape or ())}
            new.append({**noted, "array_metadata": array})
    return {**old, "array_metadatas": new}
