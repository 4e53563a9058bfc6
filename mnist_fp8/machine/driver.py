"""The NVIDIA driver and its GPUs, asked through libcuda."""

import ctypes
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver shows: its name and compute capability."""

    name: str
    capability: tuple[int, int]


@dataclass(frozen=True)
class Driver:
    """What the NVIDIA driver says.

    Attributes:
        cuda: the newest CUDA that it can run; ``(0, 0)`` where there is no driver.
        gpus: the GPUs that CUDA sees, in its order.
        error: why it has none; empty if it has.
    """

    cuda: tuple[int, int] = (0, 0)
    gpus: tuple[Gpu, ...] = ()
    error: str = ""


_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_NAME_LENGTH = 100


def find_driver() -> Driver:
    """Ask the NVIDIA driver itself; JAX is not started."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(error="no NVIDIA driver (libcuda.so.1)")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    cuda = version.value // 1000, version.value % 1000 // 10  # 12040 is 12.4
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    return Driver(cuda, gpus, "" if gpus else f"no GPU ({_error_name(library, code)})")


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, _NAME_LENGTH, device)
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Gpu(name.value.decode(), (major.value, minor.value))


def _error_name(library: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    library.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {code}"
