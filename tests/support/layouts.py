"""In which layouts codes lie, by the GPU: a product of FP8 sums along the last axes alone, or along any."""

from mnist_fp8.core.capability import Capability
from mnist_fp8.te import host


def are_codes_transposed() -> bool:
    """Whether the GPU that a host run pretends needs a transposed copy of a tensor's codes.

    cuBLAS multiplies FP8 with one scale for each tensor in one layout on Hopper (compute capability 9.0), "TN": the
    sum is along the last axis of both operands. On a data-center Blackwell (10.0) it does so in all of them.
    """
    return host.DEVICE.capability is Capability.HOPPER
