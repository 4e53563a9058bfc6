"""The ratios that times come to, and their JSON."""

import dataclasses
import json

import pytest

from mnist_fp8.benchmark.results import Benchmark, Epochs, Way, as_json
from mnist_fp8.benchmark.roofline import peaks_of
from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread
from support import benchmarks

FOUND = benchmarks.on_h100()


def with_epochs(seconds: dict[tuple[Mode, Way], tuple[float, ...]]) -> Benchmark:
    epochs = [Epochs(mode, way, 9.0, Spread(values), 0.5) for (mode, way), values in seconds.items()]
    return dataclasses.replace(FOUND, epochs=epochs)


def test_spread_is_the_middle_the_lowest_and_the_highest() -> None:
    spread = Spread((3.0, 1.0, 9.0))
    assert (spread.median, spread.lowest, spread.highest) == (3.0, 1.0, 9.0)


def test_ratios_are_taken_repeat_by_repeat() -> None:
    assert Spread((2.0, 9.0)).over(Spread((1.0, 3.0))) == Spread((2.0, 3.0))
    with pytest.raises(ValueError, match="shorter"):
        Spread((2.0, 9.0)).over(Spread((1.0,)))


def test_loop_is_compared_with_ours_of_its_mode() -> None:
    found = with_epochs(
        {
            (Mode.FLAX_BF16, Way.OURS): (1.0, 2.0, 1.0),
            (Mode.FLAX_BF16, Way.DEVICE_LOOP): (4.0, 8.0, 2.0),
            (Mode.FLAX_BF16, Way.HOST_LOOP): (6.0, 6.0, 6.0),
            (Mode.TE_BF16, Way.OURS): (2.0, 2.0, 4.0),
        }
    )
    assert found.faster_than_loop(Mode.FLAX_BF16, Way.DEVICE_LOOP) == Spread((4.0, 4.0, 2.0))
    assert found.faster_than_loops(Mode.FLAX_BF16) == Spread((4.0, 3.0, 2.0)), "the faster loop of each repeat"
    assert found.epoch_speed_up(Mode.TE_BF16) == Spread((0.5, 1.0, 0.25)), "twice the time is half as fast"


def test_layer_is_compared_with_flax_of_its_size_and_direction() -> None:
    shape = benchmarks.SHAPES[-1]
    ratio = FOUND.layer_speed_up(Mode.TE_FP8_DELAYED, shape, backward=True)
    flax, te = (FOUND.layer(mode, shape, backward=True) for mode in (Mode.FLAX_BF16, Mode.TE_FP8_DELAYED))
    assert ratio.values == tuple(a / b for a, b in zip(flax.seconds.values, te.seconds.values, strict=True))
    assert ratio != FOUND.layer_speed_up(Mode.TE_FP8_DELAYED, shape, backward=False)


def test_rate_and_shares_of_a_layer() -> None:
    peaks = peaks_of(benchmarks.H100)
    assert peaks
    layer = dataclasses.replace(
        FOUND.layer(Mode.TE_FP8_DELAYED, (1024, 1024, 1024), backward=False), seconds=Spread((1.0, 2.0, 4.0))
    )
    assert layer.rate == Spread((2**31, 2**30, 2**29))
    assert layer.of_peak(peaks) == 2**30 / 1978.9e12
    assert layer.of_roofline(peaks) == layer.least(peaks) / 2.0
    assert layer.intensity == 2**31 / (2**20 * (3 + 5 + 4))


def test_peaks_are_not_known_on_a_host_run_and_on_other_devices() -> None:
    assert FOUND.peaks == peaks_of(benchmarks.H100)
    assert benchmarks.on_h100(device="another").peaks is None
    assert benchmarks.on_h100(is_host=True).peaks is None


def test_mode_that_cannot_run_is_none_of_the_modes() -> None:
    found = benchmarks.on_h100(left_out={Mode.TE_FP8_CURRENT: "no such recipe"})
    assert found.modes == [Mode.FLAX_BF16, Mode.TE_BF16, Mode.TE_FP8_DELAYED]
    assert found.shapes == list(benchmarks.SHAPES)


def test_json_has_raw_numbers_and_what_they_come_to() -> None:
    document = json.loads(as_json(FOUND))
    assert document["schema_version"] == 1
    assert document["environment"] == FOUND.environment
    ours, loop = document["training"]["epochs"][:2]
    assert (ours["mode"], ours["way"], ours["seconds"]["median"]) == ("Flax BF16", "mnist-fp8", 0.22)
    assert ours["seconds"]["values"] == list(FOUND.epochs[0].seconds.values)
    assert loop["ours_is_faster"]["median"] == FOUND.faster_than_loop(Mode.FLAX_BF16, Way.DEVICE_LOOP).median
    layers = document["dense"]["layers"]
    assert len(layers) == len(FOUND.layers) == 7 * 2 * 4
    assert {each["of_peak"] is None for each in layers} == {False}
    assert layers[-1]["speed_up_over_flax_bf16"]["values"] == list(
        FOUND.layer_speed_up(Mode.TE_FP8_CURRENT, benchmarks.SHAPES[-1], backward=True).values
    )


def test_json_of_an_unknown_device_has_no_shares() -> None:
    document = json.loads(as_json(benchmarks.on_h100(device="another")))
    assert document["peaks"] is None
    assert {(each["of_peak"], each["least_seconds"]) for each in document["dense"]["layers"]} == {(None, None)}
