"""Whether Transformer Engine can run here, in which kind of run, and which of its pieces do not fit together.

`diagnose` compares what `machine.look` finds: quick, and possible where nothing imports. `attempt` has a new
interpreter train one small dense layer in FP8, which is the proof: a crash or a hang there does no harm here.
"""

from collections.abc import Sequence
from pathlib import Path

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.doctor import cuda_checks
from mnist_fp8.doctor.components import (
    ANY,
    NONE,
    TE,
    Check,
    Demand,
    install_plugin,
    is_in,
    judge,
    named,
    plugins_of,
    sees_gpu,
    version,
    wants_kernels,
)
from mnist_fp8.machine.packages import is_kept_from_gpu
from mnist_fp8.machine.survey import Machine, look


def diagnose(machine: Machine) -> list[Check]:
    """Compare the components with each other; what another one rests on comes first."""
    checks = [check(machine) for check in (_kind, _python, _jax, _flax, _transformer_engine)]
    on_gpu = [check(machine) for check in cuda_checks.ON_GPU]
    of_te = [check(machine) for check in cuda_checks.OF_TE]
    if not wants_kernels(machine):
        on_gpu = _only_found(on_gpu)
    if not wants_kernels(machine) or TE not in machine.packages:
        of_te = _only_found(of_te)
    return [*checks, *on_gpu, *of_te]


def _only_found(checks: Sequence[Check]) -> list[Check]:
    """Components of which nothing is needed."""
    return [Check(check.name, check.found) for check in checks]


def first_problem() -> str:
    """What does not fit here, the first of it in one line; empty if all that can be compared fits."""
    return next((check.line for check in diagnose(look()) if not check.fits), "")


def _kind(machine: Machine) -> Check:
    name, forced = "kind of run", machine.requested
    restricted = f"JAX_PLATFORMS={machine.platforms}" if is_kept_from_gpu(machine.platforms) else ""
    if forced is RunKind.KERNEL and restricted:
        return Check(name, restricted, "CUDA, for MNIST_FP8_TE=kernel", fits=False, advice="unset JAX_PLATFORMS")
    if forced is RunKind.HOST and sees_gpu(machine):
        needed = "a JAX on the CPU, for MNIST_FP8_TE=host"
        return Check(name, "a JAX with a GPU", needed, fits=False, advice="set JAX_PLATFORMS=cpu as well")
    kind = RunKind.KERNEL if wants_kernels(machine) else RunKind.HOST
    gpu = "JAX has a GPU" if sees_gpu(machine) else "JAX has no GPU"
    why = f"MNIST_FP8_TE={forced.value}" if forced else restricted or gpu
    unused = machine.driver.gpus and not plugins_of(machine) and not restricted and forced is None
    note = f"the GPU stays unused, since JAX has no CUDA plugin: {install_plugin(machine)}" if unused else ""
    return Check(name, f"{kind.value} run: {why}", advice=note)


def _python(machine: Machine) -> Check:
    asked = [machine.packages[name].python for name in ("jax", TE) if name in machine.packages]
    needed = ",".join(dict.fromkeys(filter(None, asked)))
    demand = Demand(is_in(machine.python, needed), needed or ANY, "use one of these versions")
    return judge("Python", machine.python, demand)


def _jax(machine: Machine) -> Check:
    jax = machine.packages.get("jax")
    needed = jax.needs("jaxlib") if jax else ""
    return judge(
        "JAX",
        named(machine, "jax", "jaxlib"),
        Demand(jax is not None, "jax", "pip install jax"),
        Demand(
            is_in(version(machine, "jaxlib"), needed),
            f"jaxlib{needed}",
            f"pip install jax=={version(machine, 'jax')} jaxlib=={version(machine, 'jax')}",
        ),
    )


def _flax(machine: Machine) -> Check:
    flax, jax = machine.packages.get("flax"), version(machine, "jax")
    needed = flax.needs("jax") if flax else ""
    return judge(
        "Flax",
        f"{version(machine, 'flax')}{f', for jax{needed}' if needed else ''}",
        Demand(flax is not None, "flax", "pip install flax"),
        Demand(jax == NONE or is_in(jax, needed), f"one for jax {jax}", f"pip install flax jax=={jax}"),
    )


def _transformer_engine(machine: Machine) -> Check:
    installed = version(machine, TE)
    hidden = [folder for folder in machine.te[1:] if _is_installed(folder) > _is_installed(machine.te[0])]
    places = f", in {' and '.join(map(str, (machine.te[0], *hidden)))}" if hidden else ""
    return judge(
        "Transformer Engine",
        f"{installed}{places}",
        Demand(installed != NONE, ANY, f"pip install {TE}"),
        Demand(not hidden, "the one that is installed", "the first hides it: work in another folder"),
        Demand(met=True, needed=ANY),
    )


def _is_installed(package: Path) -> bool:
    """Whether the metadata of an installation lie beside a package, as they do not in a checkout."""
    return any(package.parent.glob(f"{package.name}-*.dist-info"))
