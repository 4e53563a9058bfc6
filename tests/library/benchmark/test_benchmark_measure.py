"""The benchmark measures what it says: the same training in every way, programs in turn, layers that are really run.

No test looks at how long something takes.
"""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.benchmark import measure
from mnist_fp8.benchmark.measure import Plan, Say, _Run, choose_plan, plain_epoch
from mnist_fp8.benchmark.results import ACCURACY_EPOCHS, Way
from mnist_fp8.cli import main
from mnist_fp8.core.errors import Float8MissingError
from mnist_fp8.core.modes import Mode, Precision
from mnist_fp8.core.spread import Spread
from mnist_fp8.programs import jaxprs
from mnist_fp8.te import timing
from mnist_fp8.te.timing import interleaved
from mnist_fp8.training import data, fp8_check, train
from mnist_fp8.training.config import TrainConfig
from mnist_fp8.training.data import Dataset
from support import benchmarks

BATCH_SIZE = 16
TINY = Plan(train_size=64, test_size=32, epochs=3, shapes=((16, 32, 16),), repeats=2, seconds=1e-4, applications=2)


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Four batches of 16 and a bit, one of the 64 that the benchmark takes."""
    drawn = np.random.default_rng(0)
    image = drawn.random((4 * BATCH_SIZE + 5, 28, 28, 1), np.float32)
    return {"image": image, "label": drawn.integers(0, 10, len(image), np.int32)}


# --- epochs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [lambda dataset: dataset, jax.device_put], ids=["host", "device"])
@pytest.mark.parametrize("precision", [Precision.FLAX_BF16, Precision.TE_FP8])
def test_loop_trains_as_our_epoch_does(
    images: Dataset, where: Callable[[Dataset], Dataset], precision: Precision
) -> None:
    config = TrainConfig(precision)
    start = train.create_train_state(config)
    ours = train.train_epoch(start[0], train.on_device(config, images), BATCH_SIZE, jax.random.key(7), start[1])
    loop = plain_epoch(start[0], where(images), BATCH_SIZE, jax.random.key(7), start[1])
    assert loop[2:] == pytest.approx(ours[2:], rel=1e-3)
    for a, b, before in zip(*(jax.tree.leaves((s.params, m)) for s, m, *_ in (loop, ours, (*start,))), strict=True):
        assert np.max(np.abs(a - b)) <= 0.02 * np.max(np.abs(b - before)), "next to what training changed"
    other = plain_epoch(start[0], where(images), BATCH_SIZE, jax.random.key(8), start[1])
    assert other[2:] != pytest.approx(ours[2:], rel=1e-3), "Control: another order is another training"


@pytest.mark.parametrize(("where", "kind"), [(lambda x: x, np.ndarray), (jax.device_put, jax.Array)])
def test_loop_gathers_and_calls_two_programs_in_each_step(
    images: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    where: Callable[[Any], Any],
    kind: type[np.ndarray[Any, Any] | jax.Array],
) -> None:
    calls: list[str] = []

    def apply_model(_state: object, image: Any, label: Any, metadata: object, rngs: dict[str, jax.Array]) -> Any:
        assert isinstance(image, kind)
        assert (image.shape, label.shape) == ((BATCH_SIZE, 28, 28, 1), (BATCH_SIZE,))
        assert set(rngs) == {"dropout", "sr_rng"}
        calls.append("apply")
        return metadata, jnp.float32(len(calls)), jnp.float32(0.5)

    def update_model(state: object, _grads: object, metadata: object) -> Any:
        calls.append("update")
        return state, metadata

    monkeypatch.setattr(train, "apply_model", apply_model)
    monkeypatch.setattr(train, "update_model", update_model)
    *_, loss, accuracy = plain_epoch(None, where(images), BATCH_SIZE, jax.random.key(7), {})  # type: ignore[arg-type]
    assert calls == ["apply", "update"] * 4
    assert (loss, accuracy) == (4.0, 0.5), "the mean of 1, 3, 5 and 7"


@pytest.mark.parametrize("way", Way)
def test_training_starts_over_after_the_warm_up(images: Dataset, way: Way) -> None:
    config, state, metadata = start = measure._start(Mode.TE_FP8_DELAYED)
    assert (config.precision, config.recipe) == (Precision.TE_FP8, Mode.TE_FP8_DELAYED.recipe)
    run = _Run(start, way, images, images)
    run.warm_up()
    assert run._state is state
    assert run._metadata is metadata
    run.epoch()
    assert run._state is not state, "Control: an epoch changes it"
    assert len(run.seconds) == 1


def test_mode_that_does_not_compute_in_fp8_is_refused(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_fp8(*_arguments: object) -> None:
        raise Float8MissingError("no float8")

    monkeypatch.setattr(fp8_check, "check_fp8", check_fp8)
    measure._epochs([Mode.TE_BF16], images, images, 1, lambda _: None)
    with pytest.raises(Float8MissingError, match="no float8"):
        measure._epochs([Mode.TE_FP8_DELAYED], images, images, 1, lambda _: None)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode.FLAX_BF16, Mode.TE_FP8_DELAYED], ids=lambda mode: mode.value)
def test_our_epoch_is_much_faster_than_the_loops(mode: Mode) -> None:
    """Half of what was measured (docs/evidence/benchmark.md); all of them learn."""
    train_ds, test_ds = data.get_datasets()
    found = {each.way: each for each in measure._epochs([mode], train_ds, test_ds, ACCURACY_EPOCHS, lambda _: None)}
    assert min(each.accuracy for each in found.values()) > 0.98
    for way in (Way.DEVICE_LOOP, Way.HOST_LOOP):
        ratio = found[way].seconds.over(found[Way.OURS].seconds).median
        assert ratio >= 4, f"{mode.value}: {ratio:.1f} times as fast as the {way.value}, but should be at least 4"


# --- dense layers --------------------------------------------------------------------------------------------------


def test_programs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []

    def program(name: str, seconds: float) -> Callable[[], jax.Array]:
        def call() -> jax.Array:
            calls.append(name)
            clock[0] += seconds
            return jnp.zeros(())

        return call

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    found = interleaved([program("a", 0.5), program("b", 0.25)], repeats=2, seconds=1.0)
    assert found == [Spread((0.5, 0.5)), Spread((0.25, 0.25))], "seconds of one call"
    assert "".join(calls) == "aabb" + "aabbbb" * 2, "compiled and tried, then as many calls as fill a second, in turn"


def test_repeated_function_is_applied_as_often_as_it_says() -> None:
    x = jnp.asarray([[3.0, 5.0]])
    assert timing._repeated(lambda x: (x * 2, x + 1), 4)(x) == 4 * (3 * 2 + 3 + 1)


def test_repeated_function_is_not_taken_out_of_the_loop() -> None:
    """Its arguments are bound to the result of the application before by a barrier, and so are its results."""
    jaxpr = jax.make_jaxpr(timing._repeated(lambda x: x * 2, 4))(jnp.ones((2, 2)))
    (scan,) = [each for each in jaxprs._inner(jaxpr).eqns if each.primitive.name == "scan"]
    body = jaxprs._inner(scan.params["jaxpr"])
    names = [each.primitive.name for each in body.eqns]
    assert names[:3] == ["optimization_barrier", "mul", "optimization_barrier"]
    before, product, after = body.eqns[:3]
    assert set(before.invars) == set(body.invars)
    assert product.invars[0] in before.outvars
    assert after.invars == product.outvars


@pytest.mark.parametrize("mode", [Mode.TE_FP8_DELAYED, Mode.TE_FP8_CURRENT])
def test_layer_that_does_not_multiply_float8_is_refused(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    timing.layer_program(mode, (16, 32, 16), 1, backward=True)
    monkeypatch.setattr(timing, "Autocast", lambda _recipe: contextlib.nullcontext)
    with pytest.raises(Float8MissingError, match=f"in {mode.value} should multiply float8"):
        timing.layer_program(mode, (16, 32, 16), 1, backward=True)


def test_delayed_scaling_is_measured_with_scales_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    settle = timing._with_settled_scales

    def kept(*arguments: Any) -> dict[str, Any]:
        seen.append((arguments[1], settle(*arguments)))
        return seen[-1][1]

    monkeypatch.setattr(timing, "_with_settled_scales", kept)
    timing.layer_program(Mode.TE_FP8_DELAYED, (16, 32, 16), 1, backward=True)
    ((before, after),) = seen
    name = te.metadata_collection()
    for tensor in ("x", "kernel", "grad"):
        scale, history = te.scale_leaf(tensor), te.history_leaf(tensor)
        assert before[name][scale] == 1, "Control: it is another one at first"
        largest = 57344 if tensor == "grad" else 448
        assert float(after[name][scale][0]) == pytest.approx(largest / float(jnp.max(after[name][history])), rel=1e-6)
    np.testing.assert_array_equal(after["params"]["kernel"], before["params"]["kernel"])


# --- everything ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_plan_is_long_enough_for_the_accuracy_and_has_the_layers_of_mnist(*, on_gpu: bool, quick: bool) -> None:
    plan = choose_plan(on_gpu=on_gpu, quick=quick)
    assert plan.epochs >= ACCURACY_EPOCHS
    assert plan.repeats >= 3
    assert {(64, 12544, 128), (64, 128, 32), (64, 32, 32)} < set(plan.shapes)
    assert all(size % 16 == 0 for shape in plan.shapes for size in shape), "as FP8 needs"


def test_only_a_gpu_has_all_images_and_large_layers() -> None:
    gpu, cpu = (choose_plan(on_gpu=on_gpu, quick=False) for on_gpu in (True, False))
    assert (gpu.train_size, gpu.test_size) == (None, None)
    assert [shape[0] for shape in gpu.shapes[3:]] == [1024, 2048, 4096, 8192]
    assert (cpu.train_size, max(max(shape) for shape in cpu.shapes[3:])) == (320, 256)
    quick = choose_plan(on_gpu=True, quick=True)
    assert (quick.epochs, quick.repeats) < (gpu.epochs, gpu.repeats)


def test_recipe_that_cannot_run_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"DelayedScaling": te.Support(ok=False, reason="no FP8 here"), "Other": te.Support(ok=True)}
    monkeypatch.setattr(te, "support_by_recipe", lambda: known)
    assert measure._left_out() == {
        Mode.TE_FP8_DELAYED: "no FP8 here",
        Mode.TE_FP8_CURRENT: f"Transformer Engine {te.version()} has no such recipe",
    }


def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = {Mode.TE_BF16: "to save time", Mode.TE_FP8_CURRENT: "to save time"}
    monkeypatch.setattr(measure, "_left_out", lambda: left_out)
    said: list[str] = []
    found = measure.measure(TINY, said.append)
    modes = [Mode.FLAX_BF16, Mode.TE_FP8_DELAYED]
    assert (found.modes, found.images, found.is_host) == (modes, 64, te.engine().kind.value == "host")
    assert [(each.mode, each.way) for each in found.epochs] == [(mode, way) for mode in modes for way in Way]
    assert [(each.mode, each.shape, each.backward) for each in found.layers] == [
        (mode, (16, 32, 16), backward) for backward in (False, True) for mode in modes
    ]
    assert {len(each.seconds.values) for each in found.epochs} == {3}
    assert {len(each.seconds.values) for each in found.layers} == {2}
    for mode in modes:
        accuracies = [found.epochs_of(mode, way).accuracy for way in Way]
        assert max(accuracies) - min(accuracies) <= 0.1, "the same training, evaluated on 32 images"
    assert "epochs: compiling TE FP8 delayed, host loop" in said
    assert "dense: 16 x 32 x 16, forward and backward" in said


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Has the command measure nothing; the plans that it was asked for."""
    plans: list[Plan] = []

    def note(plan: Plan, say: Say) -> object:
        plans.append(plan)
        say("dense: something")
        return benchmarks.on_h100()

    monkeypatch.setattr(measure, "measure", note)
    return plans


@pytest.mark.usefixtures("measured")
def test_command_prints_and_writes_all_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["benchmark", "-o", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr()
    assert "How fast training is" in printed.out
    assert printed.err == "dense: something\n"
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "benchmark.md",
        "benchmark.json",
        "benchmark.png",
    }
    assert json.loads((tmp_path / "new" / "benchmark.json").read_text())["schema_version"] == 1


def test_command_without_a_folder_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[Plan]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["benchmark", "--quick"]) == main.main(["benchmark"]) == 0
    on_gpu = te.engine().kind.value == "kernel"
    assert measured == [choose_plan(on_gpu=on_gpu, quick=quick) for quick in (True, False)]
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_one_line_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], measured: list[Plan]
) -> None:
    (tmp_path / "file").touch()
    assert main.main(["benchmark", "-o", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n"), measured) == ("", 1, [])
    assert "cannot be a folder" in printed.err
