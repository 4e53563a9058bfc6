"""MNIST: the right numbers, from the right place, and a clear answer where they are damaged.

The real data come from the default cache, which the first run prepares (7 s). Preparing itself is tested on the first
few images of each split.
"""

import gzip
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
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
def cache(datasets: object) -> Path:
    """The prepared dataset in the default cache."""
    del datasets  # it is prepared by now
    return data._locate(None) / HOME


@pytest.fixture
def only_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let preparing take the first few images only."""
    complete = data._examples
    monkeypatch.setattr(data, "_examples", lambda *args: (example for _, example in zip(range(FEW), complete(*args))))  # noqa: B905


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder and a cache that hold nothing, in that folder."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


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
    """Bytes of each image and its label, sorted: TFDS has an order of its own."""
    pixels = np.round(dataset["image"] * 255).astype(np.uint8)
    return sorted((image.tobytes(), int(label)) for image, label in zip(pixels, dataset["label"], strict=True))


def originals(prefix: str, count: int) -> list[tuple[bytes, int]]:
    """The same of the first original images, read by hand."""
    pixels = unpacked(f"{prefix}-images-idx3-ubyte.gz")[16:]
    labels = unpacked(f"{prefix}-labels-idx1-ubyte.gz")[8:]
    return sorted((pixels[784 * index : 784 * (index + 1)], labels[index]) for index in range(count))


def test_every_test_image_keeps_its_label(datasets: tuple[Dataset, Dataset]) -> None:
    assert labelled(datasets[1]) == originals("t10k", 10_000)


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep decoded images however few there are."""
    monkeypatch.setattr(data, "_WORTH_KEEPING", 1)


def same(left: Dataset, right: Dataset) -> bool:
    """Whether two datasets hold the same arrays, of the same types."""
    return all(np.array_equal(left[part], right[part]) and left[part].dtype == right[part].dtype for part in left)


@pytest.mark.usefixtures("only_a_few", "keeping")
def test_images_are_decoded_once(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.get_datasets(20, 10)
    assert len(list((nowhere / "cache" / "mnist_fp8" / "pixels").iterdir())) == 2
    monkeypatch.setattr(data, "_decode", lambda *_args: pytest.fail("they were decoded again"))
    assert all(map(same, data.get_datasets(20, 10), first))
    with pytest.raises(pytest.fail.Exception):  # Control: others are decoded
        data.get_datasets(19, 10)


@pytest.mark.usefixtures("only_a_few", "keeping")
@pytest.mark.parametrize("change", ["the dataset", "what was kept"])
def test_images_are_decoded_again_after_a_change(nowhere: Path, change: str) -> None:
    first = data.get_datasets(20, 10)
    cache = nowhere / "cache" / "mnist_fp8"
    kept = sorted((cache / "pixels").iterdir())
    if change == "the dataset":
        (cache / "tfds" / HOME / "note.txt").write_text("another file")
    else:
        for file, left in zip(kept, (1000, 0), strict=True):
            file.write_bytes(file.read_bytes()[:left])
    assert all(map(same, data.get_datasets(20, 10), first))
    found = sorted((cache / "pixels").iterdir())
    assert len(found) == (4 if change == "the dataset" else 2)
    assert all(file.stat().st_size > 1000 for file in found if change != "the dataset"), "it was made again"


@pytest.mark.usefixtures("only_a_few", "keeping")
def test_images_that_cannot_be_kept_are_read_all_the_same(nowhere: Path) -> None:
    (nowhere / "cache" / "mnist_fp8").mkdir(parents=True)
    (nowhere / "cache" / "mnist_fp8" / "pixels").write_text("a file in the way")
    assert len(data.get_datasets(20, 10)[0]["label"]) == 20


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


def test_preparing_is_silent_and_imports_no_tensorflow_even_where_there_is_one(nowhere: Path) -> None:
    broken = broken_package(nowhere, "tensorflow")
    code = f"""
        import os
        os.dup2(1, 2)  # standard error goes where standard output goes
        from mnist_fp8.training import data
        complete = data._examples
        data._examples = lambda *args: (example for _, example in zip(range({FEW}), complete(*args)))
        print([len(dataset["label"]) for dataset in data.get_datasets(3, 4)])
    """
    assert run_code(code, first_on_path=broken).strip() == "[3, 4]"
    assert not was_imported(nowhere, "tensorflow")


# --- where they come from ------------------------------------------------------------------------------------------


def prepared(folder: Path) -> Path:
    """Prepare a few images in a new folder."""
    folder.mkdir(parents=True)
    data.get_datasets(1, 1, folder)
    return folder


@pytest.mark.usefixtures("only_a_few")
def test_prepared_images_keep_their_labels(nowhere: Path) -> None:
    """Of both splits, whatever is in the cache of this machine."""
    own = prepared(nowhere / "own")
    for dataset, prefix in zip(data.get_datasets(FEW, FEW, own), ("train", "t10k"), strict=True):
        assert labelled(dataset) == originals(prefix, FEW)


@pytest.mark.usefixtures("only_a_few")
def test_users_own_directory_is_read(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = prepared(nowhere / "own")
    monkeypatch.setenv("TFDS_DATA_DIR", str(own))
    monkeypatch.setattr(data, "_examples", lambda *_args: pytest.fail("it was prepared again"))
    assert len(data.get_datasets(FEW, FEW)[0]["label"]) == FEW
    assert not (nowhere / "cache").exists()


@pytest.mark.usefixtures("only_a_few")
def test_users_directory_at_its_usual_place_is_read(nowhere: Path) -> None:
    own = prepared(nowhere / "home" / "tensorflow_datasets")
    assert data._locate(None) == own


def test_without_a_directory_of_the_user_the_cache_is_used(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = nowhere / "cache" / "mnist_fp8" / "tfds"
    assert data._locate(None) == cache
    monkeypatch.setenv("TFDS_DATA_DIR", str(nowhere / "missing"))
    assert data._locate(None) == cache


def test_directory_in_a_format_that_needs_tensorflow_is_passed_over(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = nowhere / "own"
    (own / HOME).mkdir(parents=True)
    (own / HOME / "mnist-test.tfrecord-00000-of-00001").touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(own))
    assert data._locate(None) == nowhere / "cache" / "mnist_fp8" / "tfds"
    # Asked for by name it is refused: nothing may be prepared over it.
    with pytest.raises(DataError) as error:
        data.get_datasets(1, 1, own)
    assert_one_line(error, "is not in ArrayRecord format", str(own))
    assert [path.name for path in (own / HOME).iterdir()] == ["mnist-test.tfrecord-00000-of-00001"]


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
        assert str(error.value) == f"data directory {name} {problem}; expected an existing TFDS directory"
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
@pytest.mark.usefixtures("only_a_few")
def test_damaged_bundled_file_is_named_and_nothing_is_prepared(
    nowhere: Path, bundled: Path, name: str, damage: Callable[[Path], object], says: str
) -> None:
    damage(bundled / name)
    with pytest.raises(DataError) as error:
        data.get_datasets(1, 1)
    assert_one_line(error, "bundled MNIST file ", name, says, "; reinstall mnist-fp8")
    assert not list(nowhere.rglob("*.array_record*"))


@pytest.mark.usefixtures("only_a_few")
def test_intact_copy_of_the_bundled_files_is_accepted(nowhere: Path, bundled: Path) -> None:
    """Control of the test above."""
    assert bundled.is_relative_to(nowhere)
    assert len(data.get_datasets(1, 1)[0]["label"]) == 1


DAMAGES: dict[str, Callable[[Path], object]] = {
    "one byte of an image": lambda home: flip(home / TEST_RECORDS, 100_000),
    "records cut off": lambda home: (home / TEST_RECORDS).write_bytes((home / TEST_RECORDS).read_bytes()[:1_000_000]),
    "records empty": lambda home: (home / TEST_RECORDS).write_bytes(b""),
    "records missing": lambda home: (home / TEST_RECORDS).unlink(),
    "description missing": lambda home: (home / "dataset_info.json").unlink(),
    "description cut off": lambda home: (home / "dataset_info.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_dataset_is_one_line_that_says_what_to_do(
    cache: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    home = shutil.copytree(cache, tmp_path / HOME)
    damage(home)
    with pytest.raises(DataError) as error:
        data.get_datasets(1, None, tmp_path)
    assert_one_line(error, f"MNIST in {home} is damaged or incomplete (", "; remove that folder, and it is prepared")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("  first line\nsecond line"), "first line"), (MemoryError(), "MemoryError")],
    ids=["more lines", "no words"],
)
def test_reason_of_damage_is_one_line_and_never_empty(error: Exception, reason: str) -> None:
    message = "MNIST in there is damaged or incomplete ({}); remove that folder, and it is prepared again"
    assert data._damaged(Path("there"), error) == message.format(reason)


def test_intact_copy_of_the_dataset_is_accepted(cache: Path, tmp_path: Path) -> None:
    """Control of the test above."""
    shutil.copytree(cache, tmp_path / HOME)
    assert len(data.get_datasets(1, None, tmp_path)[1]["label"]) == 10_000


# --- preparing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError, OSError], ids=lambda error: error.__name__)
@pytest.mark.usefixtures("only_a_few")
def test_interrupted_preparation_starts_over(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    complete = data._examples

    def interrupted(split: str, checksums: dict[str, str]) -> Iterator[tuple[int, dict[str, object]]]:
        if split == "test":
            raise interruption
        return complete(split, checksums)

    with monkeypatch.context() as patch:
        patch.setattr(data, "_examples", interrupted)
        with pytest.raises((KeyboardInterrupt, DataError)):
            data.get_datasets(1, 1)
    assert not (data._locate(None) / HOME).exists()
    assert len(data.get_datasets(FEW, FEW)[1]["label"]) == FEW
    assert nowhere in data._locate(None).parents


@pytest.mark.usefixtures("only_a_few")
def test_killed_preparation_starts_over(nowhere: Path) -> None:
    """Without a chance to clean up: the process ends in the middle of writing, holding the lock."""
    code = f"""
        import os
        from mnist_fp8.training import data
        complete = data._examples
        def killed(split, checksums):
            for index, example in complete(split, checksums):
                if index == {FEW} // 2:
                    os._exit(0)
                yield index, example
        data._examples = killed
        data.get_datasets(1, 1)
        print("it was not killed")
    """
    assert run_code(code) == ""
    assert list((data._locate(None) / "mnist").iterdir()), "Control: it had begun to write"
    assert not (data._locate(None) / HOME).exists()
    assert len(data.get_datasets(FEW, FEW)[1]["label"]) == FEW
    assert nowhere in data._locate(None).parents


def test_waiting_for_another_process_ends(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_PREPARE_TIMEOUT_S", 0.1)
    with filelock.FileLock(nowhere / ".mnist_fp8.lock"), pytest.raises(DataError) as error:
        data.get_datasets(1, 1, nowhere)
    assert str(error.value) == f"another process has been preparing {nowhere} for 0.1 s"


def test_folder_that_cannot_be_written_is_one_line(nowhere: Path) -> None:
    (nowhere / "cache").touch()
    with pytest.raises(DataError) as error:
        data.get_datasets(1, 1)
    assert_one_line(error, f"cannot prepare MNIST in {data._locate(None)}: ", "Not a directory")


def test_pooled_images_are_the_means_of_blocks() -> None:
    images = np.zeros((2, 28, 28, 1), np.float32)
    images[1, 3:6, 24:27] = np.arange(9).reshape(3, 3, 1)
    found = data.pooled({"image": images, "label": np.arange(2)}, 3)
    assert found["image"].shape == (2, 9, 9, 1)
    assert found["image"][1, 1, 8, 0] == 4
    assert found["image"].sum() == 4
    assert data.pooled(found, 1) is found
