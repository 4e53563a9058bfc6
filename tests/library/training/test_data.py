"""MNIST: the right numbers, from the right place, in TFDS's order, and a clear answer where they are damaged."""

import gzip
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import hashing
from tensorflow_datasets.image_classification import mnist

from mnist_fp8.training import data
from mnist_fp8.training.data import DataError, Dataset
from support.subprocesses import ROOT, broken_package, run_code, was_imported

FILES = ROOT / "mnist_fp8" / "training" / "mnist_files"
HOME = Path("mnist") / "3.0.1"
TEST_RECORDS = "mnist-test.array_record-00000-of-00001"

TEST_LABELS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
"""How often each digit occurs in MNIST's test split."""

FEW = 30


@pytest.fixture(scope="module")
def datasets() -> tuple[Dataset, Dataset]:
    """Some training images and all test images."""
    return data.get_datasets(train_size=64)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS directory with the first few images of each split, written by TFDS itself."""
    folder = tmp_path_factory.mktemp("own")
    with tfds.core.registered.skip_registration():

        class FewMnist(mnist.MNIST):
            """MNIST from the files in this package."""

            name = "mnist"

            def _split_generators(self, _dl_manager: object) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
                return {"train": examples("train"), "test": examples("t10k")}

    with data._quiet_tfds():
        FewMnist(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def examples(prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, (image, label) in enumerate(originals(prefix, FEW)):
        pixels = np.frombuffer(image, np.uint8).reshape(28, 28)
        yield index, {"image": Image.fromarray(pixels), "label": label}


def unpacked(name: str) -> bytes:
    """Content of one of the files that the package carries."""
    return gzip.decompress((FILES / name).read_bytes())


def assert_one_line(error: pytest.ExceptionInfo[DataError], *parts: str) -> None:
    """The message is one line and says all that."""
    message = str(error.value)
    assert "\n" not in message
    assert not [part for part in parts if part not in message], message


# --- the numbers ---------------------------------------------------------------------------------------------------


def test_splits_have_their_shapes_and_types(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset, size in zip(datasets, (64, 10_000), strict=True):
        assert (dataset["image"].shape, dataset["image"].dtype) == ((size, 28, 28, 1), np.dtype("float32"))
        assert (dataset["label"].shape, dataset["label"].dtype) == ((size,), np.dtype("int32"))


def test_pixels_go_from_zero_to_one_in_steps_of_a_byte(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset in datasets:
        pixels = np.unique(dataset["image"])
        assert (pixels[0], pixels[-1]) == (0, 1)
        np.testing.assert_array_equal(pixels, np.round(pixels * 255).astype(np.float32) / np.float32(255))


def test_digits_of_the_test_split_are_as_many_as_mnist_has(datasets: tuple[Dataset, Dataset]) -> None:
    assert np.bincount(datasets[1]["label"]).tolist() == TEST_LABELS


def labelled(dataset: Dataset) -> list[tuple[bytes, int]]:
    """Bytes of each image, and its label."""
    pixels = np.round(dataset["image"] * 255).astype(np.uint8)
    return [(image.tobytes(), int(label)) for image, label in zip(pixels, dataset["label"], strict=True)]


def originals(prefix: str, count: int) -> list[tuple[bytes, int]]:
    """The same of the first original images, read by hand."""
    pixels = unpacked(f"{prefix}-images-idx3-ubyte.gz")[16:]
    labels = unpacked(f"{prefix}-labels-idx1-ubyte.gz")[8:]
    return [(pixels[784 * index : 784 * (index + 1)], labels[index]) for index in range(count)]


def test_every_test_image_keeps_its_label(datasets: tuple[Dataset, Dataset]) -> None:
    assert sorted(labelled(datasets[1])) == sorted(originals("t10k", 10_000))


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_in_the_order_of_tfds(datasets: tuple[Dataset, Dataset], split: str) -> None:
    """TFDS sorts by a hash of the index, with the split's name as salt."""
    hasher = hashing.Hasher(split)
    order = sorted(range(data.SIZES[split]), key=hasher.hash_key)
    assert data.tfds_order(split) == order
    images = originals("train" if split == "train" else "t10k", data.SIZES[split])
    assert labelled(datasets[split == "test"])[:64] == [images[index] for index in order[:64]]


def same(left: Dataset, right: Dataset) -> bool:
    """Whether two datasets hold the same arrays, of the same types."""
    return all(np.array_equal(left[part], right[part]) and left[part].dtype == right[part].dtype for part in left)


def test_size_takes_the_first_images(datasets: tuple[Dataset, Dataset]) -> None:
    for few, more in zip(data.get_datasets(10, 1010), datasets, strict=True):
        for part in ("image", "label"):
            np.testing.assert_array_equal(few[part], more[part][: len(few[part])])
        assert len(few["label"]) in {10, 1010}


def test_nothing_is_printed(datasets: object, capfd: pytest.CaptureFixture[str]) -> None:
    del datasets
    data.get_datasets(1, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((60_001, None), "train size is 60001; MNIST's train split has 60000 images"),
        ((None, 10_001), "test size is 10001; MNIST's test split has 10000 images"),
    ],
    ids=["training", "test"],
)
def test_more_images_than_there_are_is_refused(sizes: tuple[int | None, int | None], message: str) -> None:
    with pytest.raises(DataError) as error:
        data.get_datasets(*sizes)
    assert str(error.value) == message


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.glob("*.gz")))
def test_bundled_file_is_the_one_that_tfds_registers(name: str) -> None:
    registered = {info.filename: info.checksum for info in mnist.MNIST.url_infos.values()}
    assert hashlib.sha256((FILES / name).read_bytes()).hexdigest() == registered[name]


def test_package_bundles_the_four_files() -> None:
    registered = {info.filename for info in mnist.MNIST.url_infos.values()}
    assert {path.name for path in FILES.glob("*.gz")} == registered
    assert len(registered) == 4


def test_bundled_files_need_neither_tfds_nor_tensorflow(tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "tensorflow_datasets")
    code = """
        from mnist_fp8.training import data
        print([len(dataset["label"]) for dataset in data.get_datasets(3, 4)])
    """
    assert run_code(code, first_on_path=broken).strip() == "[3, 4]"
    assert not was_imported(tmp_path, "tensorflow_datasets")


# --- a TFDS directory ----------------------------------------------------------------------------------------------


def test_tfds_directory_gives_the_images_that_tfds_wrote_in_its_order(own: Path) -> None:
    for dataset, split, prefix in zip(data.get_datasets(FEW, FEW, own), data.SIZES, ("train", "t10k"), strict=True):
        images = originals(prefix, FEW)
        assert labelled(dataset) == [images[index] for index in data.tfds_order(split) if index < FEW]


def test_tfds_directory_is_read_in_silence_and_without_tensorflow(own: Path, tmp_path: Path) -> None:
    broken = broken_package(tmp_path, "tensorflow")
    code = f"""
        import os
        from pathlib import Path
        os.dup2(1, 2)  # standard error goes where standard output goes
        from mnist_fp8.training import data
        print([len(dataset["label"]) for dataset in data.get_datasets(3, 4, Path({str(own)!r}))])
    """
    assert run_code(code, first_on_path=broken).strip() == "[3, 4]"
    assert not was_imported(tmp_path, "tensorflow")


def test_types_are_the_same_from_both_places(own: Path) -> None:
    for left, right in zip(data.get_datasets(3, 4), data.get_datasets(3, 4, own), strict=True):
        assert {part: (left[part].shape, left[part].dtype) for part in left} == {
            part: (right[part].shape, right[part].dtype) for part in right
        }


def test_directory_in_a_format_that_needs_tensorflow_is_refused(tmp_path: Path) -> None:
    (tmp_path / HOME).mkdir(parents=True)
    (tmp_path / HOME / "mnist-test.tfrecord-00000-of-00001").touch()
    with pytest.raises(DataError) as error:
        data.get_datasets(1, 1, tmp_path)
    assert_one_line(error, "has no mnist/3.0.1 in ArrayRecord format", str(tmp_path))
    assert [path.name for path in (tmp_path / HOME).iterdir()] == ["mnist-test.tfrecord-00000-of-00001"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "does not exist"),
        ("a-file", "is not a directory"),
        ("x" * 300, "cannot be used (File name too long)"),
    ],
    ids=["missing", "a file", "a name too long"],
)
def test_data_directory_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    for refuse in (data.check_data_dir, lambda path: data.get_datasets(1, 1, path)):
        with pytest.raises(DataError) as error:
            refuse(Path(name))
        assert str(error.value) == (
            f"data directory {name} {problem}; expected a TFDS directory, or none for the MNIST in this package"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled files, which the library takes for its own."""
    copy = tmp_path / "package" / "mnist_files"
    shutil.copytree(FILES, copy)
    monkeypatch.setattr(data, "resources", SimpleNamespace(files=lambda _package: copy.parent))
    return copy


def flip(path: Path, position: int) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: flip(path, 3000), "is damaged: SHA-256 "),
        (lambda path: path.write_bytes(path.read_bytes()[:4000]), "is damaged: SHA-256 "),
        (lambda path: path.unlink(), "cannot be read (["),
    ],
    ids=["one byte", "cut off", "missing"],
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_damaged_bundled_file_is_named(bundled: Path, name: str, damage: Callable[[Path], object], says: str) -> None:
    damage(bundled / name)
    with pytest.raises(DataError) as error:
        data.get_datasets(1, 1)
    assert_one_line(error, "bundled MNIST file ", name, says, "; reinstall mnist-fp8")


@pytest.mark.usefixtures("bundled")
def test_intact_copy_of_the_bundled_files_is_accepted() -> None:
    """Control of the test above."""
    assert len(data.get_datasets(1, 1)[0]["label"]) == 1


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one byte of an image": lambda home: flip(home / TEST_RECORDS, (home / TEST_RECORDS).stat().st_size // 20),
    "records cut off": lambda home: (home / TEST_RECORDS).write_bytes((home / TEST_RECORDS).read_bytes()[:5000]),
    "records empty": lambda home: (home / TEST_RECORDS).write_bytes(b""),
    "records missing": lambda home: (home / TEST_RECORDS).unlink(),
    "description missing": lambda home: (home / "dataset_info.json").unlink(),
    "description cut off": lambda home: (home / "dataset_info.json").write_text("{"),
    "fewer images than asked for": lambda _home: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_dataset_is_one_line_that_says_what_to_do(own: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    DAMAGES[damage](tmp_path / HOME)
    with pytest.raises(DataError) as error:
        data.get_datasets(1, FEW + 1 if "fewer" in damage else FEW, tmp_path)
    assert_one_line(error, f"MNIST in {tmp_path / HOME} is damaged or incomplete (", "; name no data directory, and")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("  first line\nsecond line"), "first line"), (MemoryError(), "MemoryError")],
    ids=["more lines", "no words"],
)
def test_reason_of_damage_is_one_line_and_never_empty(error: Exception, reason: str) -> None:
    assert f" is damaged or incomplete ({reason}); name no data directory" in data._damaged(Path("there"), error)


def test_pooled_images_are_the_means_of_blocks() -> None:
    images = np.zeros((2, 28, 28, 1), np.float32)
    images[1, 3:6, 24:27] = np.arange(9).reshape(3, 3, 1)
    found = data.pooled({"image": images, "label": np.arange(2)}, 3)
    assert found["image"].shape == (2, 9, 9, 1)
    assert found["image"][1, 1, 8, 0] == 4
    assert found["image"].sum() == 4
    assert data.pooled(found, 1) is found
