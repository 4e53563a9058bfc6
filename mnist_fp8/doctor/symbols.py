"""Which library lacks a symbol that another one needs, and which wheel or folder that library is from."""

import re

from mnist_fp8.doctor.components import version
from mnist_fp8.machine.survey import Machine

_MISSING = re.compile(r"(\S+): undefined symbol: ([^\s,]+)(?:, version (lib[\w-]+\.so[.\d]*))?")
_TOO_OLD = re.compile(r"(\S+): version `(\w+)_[\d.]+' not found \(required by ([^)\s]+)")
_OF_THE_SYSTEM = {"GLIBCXX": "libstdc++", "CXXABI": "libstdc++", "GLIBC": "the C library"}
_CPP = re.compile(r"_Z(?:T[ISV]|N?K?)?St")
"""How names in C++'s namespace ``std`` begin, as compilers write them."""
_NAMES = ("cublas", "cudnn", "nccl", "cusolver", "cusparse", "cufft", "curand", "nvrtc", "cudart", "cuda")
"""How libraries of CUDA and their symbols begin, what is longer first."""
_WHEELS = {"cudart": "cuda-runtime", "cuda": "cuda-runtime", "nvrtc": "cuda-nvrtc"}
"""The wheels that are not called as their libraries are."""


def remedy(machine: Machine, error: str) -> str:
    """What to do about a symbol that the loader does not find; empty if the error is another one."""
    if old := _TOO_OLD.search(error):
        return f"{_short(old[3])} needs a newer {_OF_THE_SYSTEM.get(old[2], _short(old[1]))} than {old[1]}: {_COMPILE}"
    if not (missing := _MISSING.search(error)):
        return ""
    user, symbol, library = _short(missing[1]), missing[2], missing[3] or ""
    if _CPP.match(symbol):
        return f"{user} needs {symbol} of C++'s standard library (libstdc++.so.6), which is too old here: {_COMPILE}"
    if re.match(r"cu[A-Z]", symbol):
        return f"{user} needs {symbol} of the NVIDIA driver (libcuda.so.1), which is too old: update the driver"
    name = next((name for name in _NAMES if (library.removeprefix("lib") or symbol).startswith(name)), "")
    if not name:
        return ""
    wheel = _wheel(machine, name)
    places = _places(machine, library or f"lib{'cudart' if name == 'cuda' else name}.so")
    found = " and ".join(filter(None, (f"{wheel} {version(machine, wheel)}" if wheel else "", *places)))
    lacks = f"{user} needs {symbol} of {library or f'lib{name}'}; found without it: {found or 'the loaded one'}"
    return f"{lacks}: {f'pip install --upgrade {wheel}' if wheel else 'install the one that it was compiled with'}"


_COMPILE = "install a newer one, see whether LD_LIBRARY_PATH names an older one, or compile it with the compiler here"


def _short(path: str) -> str:
    return path.rpartition("/")[2]


def _wheel(machine: Machine, name: str) -> str:
    """The installed wheel of a library; empty if there is none."""
    wheel = f"nvidia-{_WHEELS.get(name, name)}"
    return next((each for each in machine.packages if each == wheel or re.fullmatch(rf"{wheel}-cu\d+", each)), "")


def _places(machine: Machine, library: str) -> list[str]:
    """The folders with a library, in the order in which the loader looks into them."""
    folders = dict.fromkeys((*machine.library_path, *machine.wheels, *machine.system))
    return [str(folder) for folder in folders if any(folder.glob(f"{library}*"))]
