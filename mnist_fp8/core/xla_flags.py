"""The flags of XLA that this project sets. They stand in ``XLA_FLAGS``, which XLA reads once, when JAX starts.

JAX is not imported: what judges asks for them, too.
"""

import functools
import importlib.util
import itertools
import mmap
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

VARIABLE = "XLA_FLAGS"

FLOAT32_SUMS = "--xla_cpu_experimental_ynn_fusion_type="
"""Has XLA on a CPU leave no product to YNNPACK.

On CPUs with AMX or AVX512-BF16, YNNPACK of JAX 0.11 sums some BF16 products in BF16, whoever asks for them: a healthy
Transformer Engine is off by ten times what a rounding costs. `xla_products` measures it.
"""

NO_OPTIMIZATIONS = "--xla_backend_optimization_level=0"
"""Has LLVM optimize nothing that XLA compiles for a CPU: tests and measurements compile for far longer than they run.

What is computed stays as it is defined; LLVM reorders no sums of floating-point numbers at any level.
"""

FORMER_EMITTERS = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
"""Has XLA write LLVM's code for a CPU itself, and not by way of MLIR: with both flags, compiling takes half the time.

An XLA that has no other emitters, or no more, passes over this option. It adds to those that the user has set.
"""

IN_ONE_PIECE = "--xla_cpu_parallel_codegen_split_count=1"
"""Has LLVM compile a program for a CPU in one piece: pieces that threads may share cost a tenth to a fifth more."""

NO_EXCESS_PRECISION = "--xla_allow_excess_precision=false"
"""Has XLA round to BF16 wherever a program says so.

Else it leaves out a rounding between two operations that it compiles into one, so that codes depend on what it does.
On a GPU, the amax of current scaling is one of a tensor before it was rounded: outputs and gradients of a model's
layers were off by up to three times what their operands explain, and metadata that a train step cast to BF16 and back
stayed as they were.
"""

IN_ORDER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
"""Has XLA of JAX 0.5 start the sums over devices of a program in one order on all of them.

Else devices may wait for each other in two sums at once, for ever: seen in one of three runs on two cores. A later XLA
does not have the flag.
"""

NO_GRAPHS = "--xla_gpu_enable_command_buffer="
"""Has XLA on a GPU launch each kernel itself, and not all of a program as a CUDA graph when it runs again.

Fused attention of Transformer Engine 2.20.2 under JAX 0.11.2 then reads memory that is not its own: the process is lost
for all that comes after. A test of its own shows it.
"""

REPEATABLE = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0", NO_EXCESS_PRECISION)
"""For a GPU. Without them XLA times algorithms anew in each process, and training takes another path."""

ON_A_CPU = (FLOAT32_SUMS, NO_OPTIMIZATIONS, FORMER_EMITTERS, IN_ONE_PIECE, NO_EXCESS_PRECISION, IN_ORDER)
_OURS = (*ON_A_CPU, NO_GRAPHS, *REPEATABLE)


def put_first(*flags: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set flags, before JAX starts. What the user has set comes last and wins; the name of a file of flags stays."""
    if names_file(environ):
        return
    given = environ.get(VARIABLE, "")
    words = given.split()
    environ[VARIABLE] = " ".join([*(flag for flag in flags if flag not in words), given]).strip()


def names_file(environ: Mapping[str, str]) -> bool:
    """Whether the variable is the name of a file with flags: so XLA takes what does not begin as a flag does."""
    return environ.get(VARIABLE, "-").strip()[:1] not in ("-", "")


def ours(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The flags that this project has set."""
    return tuple(itertools.takewhile(_OURS.__contains__, environ.get(VARIABLE, "").split()))


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for another JAX, which ends at a flag that it does not know; it sets its own."""
    rest = environ.get(VARIABLE, "").split()[len(ours(environ)) :]
    others = {name: value for name, value in environ.items() if name != VARIABLE}
    return others | ({VARIABLE: " ".join(rest)} if rest else {})


@functools.cache
def is_known(flag: str) -> bool:
    """Whether the installed XLA has a flag. It can't be tried: XLA ends the process at a flag that it does not know.

    XLA's table of flags has the name as a C string; elsewhere, in descriptions of messages, no zeros surround it.
    """
    name = b"\0" + flag.removeprefix("--").partition("=")[0].encode() + b"\0"
    return any(_holds(library, name) for library in _libraries())


def _libraries() -> Iterator[Path]:
    """Where XLA may be: in ``xla_extension`` until JAX 0.5."""
    spec = importlib.util.find_spec("jaxlib")
    for folder in spec.submodule_search_locations or () if spec else ():
        for name in ("*jax_common.*", "xla_extension.*"):
            yield from sorted(Path(folder).glob(name))


def _holds(library: Path, text: bytes) -> bool:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        return image.find(text) != -1
