"""MNIST through TensorFlow Datasets, without a network and without TensorFlow.

A TFDS directory that already holds MNIST is read. Otherwise the dataset is prepared from the four original files,
which this package carries and verifies against the checksums that TFDS registers for them.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.files import cache_dir, replace_file

Dataset = dict[str, npt.NDArray[Any]]
"""``image``: float32 in [0, 1] of shape (N, 28, 28, 1); ``label``: int32 of shape (N,)."""

SIZES = {"train": 60_000, "test": 10_000}
"""Images in each split."""

SIDE = 28
"""Pixels of an image, in height and width."""

CLASSES = 10
_VERSION = "3.0.1"
_PREFIX = {"train": "train", "test": "t10k"}
_READ_AT_ONCE = 1000
_WORTH_KEEPING = 5000
"""Images from which on decoding takes long: all of MNIST 5 s, and 0.2 s where it is kept."""
_PREPARE_TIMEOUT_S = 300


class DataError(ConfigError):
    """The data are missing, damaged or smaller than asked for; the message is one line."""


def get_datasets(
    train_size: int | None = None, test_size: int | None = None, data_dir: Path | None = None
) -> tuple[Dataset, Dataset]:
    """Read MNIST (TFDS ``mnist:3.0.1``), in TFDS's order.

    Args:
        train_size: images to take from the start of the training split; ``None`` takes all 60,000.
        test_size: images to take from the start of the test split; ``None`` takes all 10,000.
        data_dir: existing TFDS directory; it is prepared there if it holds no MNIST. ``None`` reads the user's own
            TFDS directory if that holds MNIST, and otherwise a cache.

    Returns:
        The training and the test set.

    Raises:
        DataError: a directory or file is missing or damaged, or a size is larger than its split.
    """
    for split, size in (("train", train_size), ("test", test_size)):
        if size is not None and size > SIZES[split]:
            raise DataError(f"{split} size is {size}; MNIST's {split} split has {SIZES[split]} images")
    builder = _prepared_builder(_locate(data_dir))
    return _read(builder, "train", train_size), _read(builder, "test", test_size)


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
        DataError: it is not a directory.
    """
    if data_dir is None:
        return
    try:
        if data_dir.is_dir():
            return
        problem = "is not a directory" if data_dir.exists() else "does not exist"
    except OSError as error:  # such as a name that is too long
        problem = f"cannot be used ({error.strerror})"
    raise DataError(f"data directory {data_dir} {problem}; expected an existing TFDS directory")


def _locate(data_dir: Path | None) -> Path:
    check_data_dir(data_dir)
    if data_dir is not None:
        return data_dir
    # Where there is no home folder, this names none, as it should; Path.home() would raise.
    own = Path(os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets"))  # noqa: PTH111
    # Only ArrayRecord can be read without TensorFlow.
    return own if any((own / "mnist" / _VERSION).glob("*.array_record*")) else cache_dir() / "tfds"


def _prepared_builder(data_dir: Path) -> Any:  # noqa: ANN401 - a TFDS builder, which is untyped
    home = data_dir / "mnist" / _VERSION
    if home.is_dir() and not any(home.glob("*.array_record*")):
        raise DataError(f"{home} is not in ArrayRecord format, which is the one that needs no TensorFlow to be read")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # One process prepares; the others wait for it and then read.
        with filelock.FileLock(data_dir / ".mnist_fp8.lock", timeout=_PREPARE_TIMEOUT_S), _quiet_tfds():
            builder = _make_builder(data_dir)
            builder.download_and_prepare()
            return builder
    except DataError:
        raise
    except filelock.Timeout:
        raise DataError(f"another process has been preparing {data_dir} for {_PREPARE_TIMEOUT_S} s") from None
    except OSError as error:
        raise DataError(f"cannot prepare MNIST in {data_dir}: {error}") from error
    except Exception as error:
        raise DataError(_damaged(home, error)) from error


def _make_builder(data_dir: Path) -> Any:  # noqa: ANN401
    import tensorflow_datasets as tfds  # noqa: PLC0415 - half a second, and only where data are read
    from tensorflow_datasets.image_classification import mnist  # noqa: PLC0415

    with tfds.core.registered.skip_registration():

        class OfflineMnist(mnist.MNIST):
            """TFDS's MNIST, generated from the files in this package."""

            name = "mnist"

            def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict[str, object]]]]:
                del dl_manager  # nothing is downloaded
                checksums = {info.filename: info.checksum for info in mnist.MNIST.url_infos.values()}
                return {split: _examples(split, checksums) for split in SIZES}

    return OfflineMnist(data_dir=data_dir, file_format="array_record")


def _examples(split: str, checksums: dict[str, str]) -> Iterator[tuple[int, dict[str, object]]]:
    from PIL import Image  # noqa: PLC0415 - needed only to prepare

    prefix = _PREFIX[split]
    images = _bundled_bytes(f"{prefix}-images-idx3-ubyte.gz", checksums)[16:]
    labels = _bundled_bytes(f"{prefix}-labels-idx1-ubyte.gz", checksums)[8:]
    pixels = np.frombuffer(images, np.uint8).reshape(SIZES[split], 28, 28)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        yield index, {"image": Image.fromarray(image), "label": label}


def _bundled_bytes(name: str, checksums: dict[str, str]) -> bytes:
    """Unpack one of the original files after checking it.

    Raises:
        DataError: the file is missing or is not the one that TFDS registers.
    """
    path = resources.files("mnist_fp8.training") / "mnist_files" / name
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise DataError(f"bundled MNIST file {name} cannot be read ({error}); reinstall mnist-fp8") from error
    digest = hashlib.sha256(packed).hexdigest()
    if digest != checksums[name]:
        raise DataError(
            f"bundled MNIST file {path} is damaged: SHA-256 {digest[:12]}…,"
            f" expected {checksums[name][:12]}…; reinstall mnist-fp8"
        )
    return gzip.decompress(packed)


def _read(builder: Any, split: str, size: int | None) -> Dataset:  # noqa: ANN401
    count = size or SIZES[split]
    pixels, labels = (_decode if count < _WORTH_KEEPING else _decode_once)(builder, split, count)
    return {"image": pixels.astype(np.float32) / np.float32(255), "label": labels}


_Pixels = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]
"""Images of shape (N, 28, 28, 1), and labels."""


def _decode(builder: Any, split: str, count: int) -> _Pixels:  # noqa: ANN401
    try:
        records: list[Any] = []
        with _quiet_tfds():
            source = builder.as_data_source(split)
            for start in range(0, count, _READ_AT_ONCE):
                records += source.__getitems__(range(start, min(start + _READ_AT_ONCE, count)))
        images = np.stack([record["image"] for record in records])
        labels = np.array([record["label"] for record in records], np.int32)
    except Exception as error:
        raise DataError(_damaged(Path(builder.data_dir), error)) from error
    return images, labels


def _decode_once(builder: Any, split: str, count: int) -> _Pixels:  # noqa: ANN401
    file = _kept_pixels(Path(builder.data_dir), split, count)
    kept = _load_pixels(file)
    if kept is None:
        kept = _decode(builder, split, count)
        _keep_pixels(file, *kept)
    return kept


def _kept_pixels(home: Path, split: str, count: int) -> Path:
    """Where decoded images of a prepared dataset are kept: in another place as soon as one of its files changes."""
    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(home.iterdir())]
    return cache_dir() / "pixels" / f"{split}-{count}-{hashlib.sha256(repr(files).encode()).hexdigest()[:24]}.npz"


def _load_pixels(file: Path) -> _Pixels | None:
    try:
        with file.open("rb") as opened, np.load(opened) as kept:
            return kept["image"], kept["label"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # not there, or damaged


def _keep_pixels(file: Path, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32]) -> None:
    """Keep decoded images; where that is not possible, they are decoded again next time."""
    content = io.BytesIO()
    np.savez(content, image=pixels, label=labels)
    with contextlib.suppress(OSError):
        replace_file(file, content.getvalue())


def _damaged(home: Path, error: Exception) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"MNIST in {home} is damaged or incomplete ({first_line}); remove that folder, and it is prepared again"


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
