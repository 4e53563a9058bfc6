"""What a dense layer costs at least: its operations and bytes, and the time that a GPU needs for them.

Everything is for ``y = x @ kernel`` without bias, of ``x`` (M, K) and ``kernel`` (K, N). ``x``, ``y`` and their
gradients are BF16; the kernel and its gradient are float32, as `model.Net` keeps them.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from mnist_fp8.core.modes import Mode

Shape = tuple[int, int, int]
"""M, K and N: rows, contracted size, features."""

_BF16, _FP8, _FP32 = 2, 1, 4
"""Bytes of an element."""


# --- what the GPU can do -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What a GPU can do at most.

    Attributes:
        bf16: dense BF16 operations in a second, on tensor cores.
        fp8: dense FP8 operations in a second, on tensor cores.
        bandwidth: bytes in a second from and to the GPU's memory.
        source: where the numbers are from.
    """

    bf16: float
    fp8: float
    bandwidth: float
    source: str

    def of(self, mode: Mode) -> float:
        """Operations in a second of a mode's matrix products."""
        return self.fp8 if mode.is_fp8 else self.bf16


_TENSOR_CORES = (
    "NVIDIA, H100 Tensor Core GPU Architecture, table of peak rates of the SXM5 board: dense, which is half of the"
    " 1,979 (BF16) and 3,958 (FP8) TFLOP/s with sparsity in the data sheet"
)
_PEAKS = {
    "NVIDIA H100 80GB HBM3": Peaks(
        989.4e12, 1978.9e12, 3.35e12, f"{_TENSOR_CORES}; NVIDIA H100 data sheet, H100 SXM: 3.35 TB/s"
    ),
    "NVIDIA H200": Peaks(
        989.4e12, 1978.9e12, 4.8e12, f"{_TENSOR_CORES}, the same chip; NVIDIA H200 data sheet, H200 SXM: 4.8 TB/s"
    ),
}
"""By the name that JAX gives the device."""


def peaks_of(device: str) -> Peaks | None:
    """What a device can do at most, by its ``device_kind``; ``None`` where that is not known here."""
    return _PEAKS.get(device)


# --- what a layer costs --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A piece of work that is over before the next one starts.

    Attributes:
        name: what it does.
        bytes: read from memory and written to it.
        operations: multiplications and additions of a matrix product; 0 for others.
    """

    name: str
    bytes: int
    operations: int = 0

    def seconds(self, mode: Mode, peaks: Peaks) -> float:
        """The least time it takes: ``max(operations / peak, bytes / bandwidth)``."""
        return max(self.operations / peaks.of(mode), self.bytes / peaks.bandwidth)


def operations(shape: Shape, *, backward: bool) -> int:
    """Operations of the matrix products: ``2MKN`` forward, and as many for each of the two gradients."""
    m, k, n = shape
    return 2 * m * k * n * (3 if backward else 1)


def kernels(mode: Mode, shape: Shape, *, backward: bool) -> list[Kernel]:
    """The work that a layer cannot do without, kernel by kernel.

    - BF16: the kernel is cast (4 bytes read, 2 written an element); then the products.
    - FP8, delayed scaling: the scale is known, so a tensor is read once and its float8 codes are written. Transformer
      Engine quantizes the float32 kernel itself, in every step: 4 bytes an element are read for 1 that is written.
    - FP8, current scaling: the scale is that of the tensor's own amax, so it is read once more before.
    - With the backward pass every quantized tensor is written twice, as it is and transposed: the FP8 products of
      Hopper's tensor cores take operands only in the layout in which the contracted axis is contiguous (cuBLAS,
      "cublasLtMatmul", FP8: A transposed and B not).

    It is a lower bound: kernels that could be merged are not counted twice (the amax of delayed scaling is taken in
    the pass that quantizes), and a gradient of the kernel is written as float32 at once.
    """
    m, k, n = shape
    product, size = 2 * m * k * n, _FP8 if mode.is_fp8 else _BF16
    x, kernel, y = m * k, k * n, m * n
    work = [*_prepare(mode, "x", x, _BF16, twice=backward), *_prepare(mode, "kernel", kernel, _FP32, twice=backward)]
    work.append(Kernel("product: y", size * (x + kernel) + _BF16 * y, product))
    if backward:
        work += _prepare(mode, "gradient", y, _BF16, twice=True)
        work.append(Kernel("product: gradient of x", size * (y + kernel) + _BF16 * x, product))
        work.append(Kernel("product: gradient of the kernel", size * (x + y) + _FP32 * kernel, product))
    return work


def _prepare(mode: Mode, name: str, elements: int, size: int, *, twice: bool) -> Iterator[Kernel]:
    """What is done with a tensor before it can be multiplied; ``size`` is in bytes of an element."""
    if mode is Mode.TE_FP8_CURRENT:
        yield Kernel(f"amax: {name}", elements * size)
    if mode.is_fp8:
        yield Kernel(f"quantize: {name}", elements * (size + _FP8 * (2 if twice else 1)))
    elif size != _BF16:
        yield Kernel(f"cast: {name}", elements * (size + _BF16))


def least_seconds(mode: Mode, work: Sequence[Kernel], peaks: Peaks) -> float:
    """The least time that kernels take one after another: their least times add up.

    Bandwidth is that of the GPU's memory. What fits into its L2 cache (50 MB on an H100) can be read again faster, so
    layers that are small may come out better than this.
    """
    return sum(kernel.seconds(mode, peaks) for kernel in work)


def intensity(work: Sequence[Kernel]) -> float:
    """Operations for each byte that has to move."""
    return sum(kernel.operations for kernel in work) / sum(kernel.bytes for kernel in work)
