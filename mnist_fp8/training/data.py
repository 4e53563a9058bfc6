"""MNIST in the order of TensorFlow Datasets, without a network and without TensorFlow.

This package carries the four original files and reads them itself: TFDS needs a minute to write them as a dataset of
its own, and these take a second. The order is TFDS's, so that both give the same images. A TFDS directory is read where
one is named.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import logging
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_fp8.core.errors import ConfigError

Dataset = dict[str, npt.NDArray[Any]]
"""``image``: float32 in [0, 1] of shape (N, 28, 28, 1); ``label``: int32 of shape (N,)."""

SIZES = {"train": 60_000, "test": 10_000}
"""Images in each split."""

SIDE = 28
"""Pixels of an image, in height and width."""

CLASSES = 10
_VERSION = "3.0.1"
_FILES = {
    "train": (
        ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
}
"""Images and labels of each split, with the SHA-256 that TFDS registers for them."""
_HEADER = {"images": 16, "labels": 8}
"""Bytes before the first number of a file."""
_READ_AT_ONCE = 1000


class DataError(ConfigError):
    """The data are missing, damaged or smaller than asked for; the message is one line."""


def get_datasets(
    train_size: int | None = None, test_size: int | None = None, data_dir: Path | None = None
) -> tuple[Dataset, Dataset]:
    """Read MNIST (TFDS ``mnist:3.0.1``), in TFDS's order.

    Args:
        train_size: images to take from the start of the training split; ``None`` takes all 60,000.
        test_size: images to take from the start of the test split; ``None`` takes all 10,000.
        data_dir: TFDS directory that holds MNIST; ``None`` reads the files in this package.

    Returns:
        The training and the test set.

    Raises:
        DataError: a directory or file is missing or damaged, or a size is larger than its split.
    """
    counts = {"train": train_size, "test": test_size}
    for split, size in counts.items():
        if size is not None and size > SIZES[split]:
            raise DataError(f"{split} size is {size}; MNIST's {split} split has {SIZES[split]} images")
    check_data_dir(data_dir)
    read = _read_bundled if data_dir is None else _tfds_reader(data_dir)
    train, test = (_dataset(*read(split, size or SIZES[split])) for split, size in counts.items())
    return train, test


def pooled(dataset: Dataset, size: int) -> Dataset:
    """A dataset of smaller images: means of blocks of ``size`` by ``size`` pixels; what fills no block is left out."""
    if size == 1:
        return dataset
    images = dataset["image"]
    side = images.shape[1] // size
    blocks = images[:, : side * size, : side * size].reshape(len(images), side, size, side, size, 1)
    return {**dataset, "image": blocks.mean(axis=(2, 4))}


def check_data_dir(data_dir: Path | None) -> None:
    """Refuse a data directory that cannot be used, before any work.

    Raises:
        DataError: it is not a directory, or holds no MNIST that can be read.
    """
    if data_dir is None:
        return
    expected = "expected a TFDS directory, or none for the MNIST in this package"
    try:
        if not data_dir.is_dir():
            problem = "is not a directory" if data_dir.exists() else "does not exist"
            raise DataError(f"data directory {data_dir} {problem}; {expected}")
        if not any(_home(data_dir).glob("*.array_record*")):
            # Only ArrayRecord can be read without TensorFlow.
            raise DataError(f"data directory {data_dir} has no mnist/{_VERSION} in ArrayRecord format; {expected}")
    except OSError as error:  # such as a name that is too long
        raise DataError(f"data directory {data_dir} cannot be used ({error.strerror}); {expected}") from error


_Pixels = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]
"""Images of shape (N, 28, 28, 1), and labels."""


def _dataset(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> Dataset:
    return {"image": pixels.astype(np.float32) / np.float32(255), "label": labels.astype(np.int32)}


# --- from this package ---------------------------------------------------------------------------------------------


def _read_bundled(split: str, count: int) -> _Pixels:
    (images, labels), rows = _FILES[split], tfds_order(split)[:count]
    pixels = np.frombuffer(_bundled_bytes(*images)[_HEADER["images"] :], np.uint8).reshape(-1, SIDE, SIDE, 1)
    return pixels[rows], np.frombuffer(_bundled_bytes(*labels)[_HEADER["labels"] :], np.uint8)[rows]


@functools.cache
def tfds_order(split: str) -> list[int]:
    """Indices of a split's original images in the order in which TFDS stores them: by the MD5 of split and index.

    Source: ``Hasher`` and ``Shuffler`` in ``tensorflow_datasets.core``.
    """

    def digest(index: int) -> bytes:
        return hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest()

    return sorted(range(SIZES[split]), key=digest)


def _bundled_bytes(name: str, checksum: str) -> bytes:
    """Unpack one of the original files after checking it.

    Raises:
        DataError: the file is missing or is not the original.
    """
    path = resources.files("mnist_fp8.training") / "mnist_files" / name
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"bundled MNIST file {name} cannot be read ({error}); reinstall mnist-fp8") from error
    digest = hashlib.sha256(packed).hexdigest()
    if digest != checksum:
        raise DataError(
            f"bundled MNIST file {path} is damaged: SHA-256 {digest[:12]}…, expected {checksum[:12]}…;"
            " reinstall mnist-fp8"
        )
    return gzip.decompress(packed)


# --- from a TFDS directory -----------------------------------------------------------------------------------------


def _home(data_dir: Path) -> Path:
    return data_dir / "mnist" / _VERSION


def _tfds_reader(data_dir: Path) -> Any:  # noqa: ANN401
    """A function that reads images and labels of a split from a TFDS directory."""
    try:
        import tensorflow_datasets as tfds  # noqa: PLC0415 - half a second, and only where such a directory is read

        with _quiet_tfds():
            builder = tfds.builder_from_directory(_home(data_dir))
    except Exception as error:
        raise DataError(_damaged(data_dir, error)) from error

    def read(split: str, count: int) -> _Pixels:
        try:
            records: list[Any] = []
            with _quiet_tfds():
                source = builder.as_data_source(split)
                for start in range(0, count, _READ_AT_ONCE):
                    records += source.__getitems__(range(start, min(start + _READ_AT_ONCE, count)))
            return np.stack([record["image"] for record in records]), np.array([record["label"] for record in records])
        except Exception as error:
            raise DataError(_damaged(data_dir, error)) from error

    return read


def _damaged(data_dir: Path, error: Exception) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"MNIST in {_home(data_dir)} is damaged or incomplete ({first_line});"
        " name no data directory, and the MNIST in this package is read"
    )


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silence what TFDS prints: it announces downloads, and there are none, and recommends OpenCV."""
    import tensorflow_datasets as tfds  # noqa: PLC0415

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
