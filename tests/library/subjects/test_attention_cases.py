"""Attention as a subject: what its cases see, and which of them have kernels."""

import numpy as np
import pytest

from mnist_fp8.subjects import attention
from mnist_fp8.subjects.attention import GAPS, PACKED, SUBJECT, allowed, case, segment_positions
from mnist_fp8.subjects.attention_backends import backends
from mnist_fp8.subjects.layer import Layer


def test_segments_see_themselves_alone() -> None:
    seen = allowed(case("gaps", "padding_causal", segments=GAPS))
    ids = np.asarray(GAPS)
    for sequence, query, key in np.ndindex(2, 32, 32):
        same = ids[sequence, query] == ids[sequence, key] > 0
        assert seen[sequence, 0, query, key] == (same and key <= query)


def test_positions_start_anew_with_each_segment() -> None:
    assert segment_positions(((1, 1, 2, 2, 2, 0, 0),)).tolist() == [[0, 1, 0, 1, 2, 0, 1]]


@pytest.mark.host
def test_layer_gets_its_inputs_in_the_order_of_the_call() -> None:
    """And not by name, as they come out of a compiled program: keys have other positions than queries."""
    layer = Layer(SUBJECT, SUBJECT.case("cross, causal"))
    assert [y.shape for y in layer.grads()] == [(2, 16, 4, 16)]


@pytest.mark.host
def test_host_run_has_no_kernel_for_any_case() -> None:
    found = backends()
    assert set(found) == {f"{subject.name}, {one.name}" for subject in (SUBJECT, PACKED) for one in subject.cases}
    assert set(found.values()) == {"unfused"}


@pytest.mark.parametrize("name", ["no mask", "causal"])
def test_layer_is_given_no_mask_that_it_knows(name: str) -> None:
    assert attention.mask(SUBJECT.case(name)) is None
