"""Whether this machine can run a recipe, found by asking TE."""

import dataclasses

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te import loading
from mnist_fp8.te.autocasts import autocast
from mnist_fp8.te.recipes import make_recipe, needed_arguments


@dataclasses.dataclass(frozen=True)
class Support:
    """Whether this machine can run something, and TE's own words where it cannot."""

    ok: bool
    reason: str = ""


def support(recipe: object) -> Support:
    """Whether TE lets this machine use a recipe object, found by asking its autocast."""
    try:
        with autocast(enabled=True, recipe=recipe):
            return Support(ok=True)
    except (AssertionError, ValueError, NotImplementedError) as error:
        return Support(ok=False, reason=str(error))
    except AttributeError as error:
        # 2.1 and 2.2 have recipes for PyTorch that their JAX side takes for DelayedScaling, and stumbles over.
        if type(recipe).__name__ not in str(error):
            raise
        return Support(ok=False, reason=str(error))


def support_by_recipe() -> dict[str, Support]:
    """What `support` says of each recipe of the installed TE, with its default options.

    A recipe that has to be given something is not asked for: no option of ours gives it.
    """
    return {
        name: Support(ok=False, reason=f"it has to be given {', '.join(arguments)}") if arguments else _default(name)
        for name, arguments in needed_arguments().items()
    }


def _default(name: str) -> Support:
    try:
        return support(make_recipe(RecipeConfig(name)))
    except ConfigError as error:  # a switch of the shell, such as NVTE_BACKWARD_OVERRIDE, may give it another default
        return Support(ok=False, reason=str(error))


def require_support(config: RecipeConfig) -> None:
    """Refuse a recipe that cannot run here.

    Raises:
        ConfigError: with TE's reason and the recipes that this machine can run.
    """
    asked = support(make_recipe(config))
    if asked.ok:
        return
    able = [name for name, support in support_by_recipe().items() if support.ok]
    raise ConfigError(
        f"recipe {config.name} cannot run here ({loading.engine().description}): {asked.reason}"
        f" Possible here: {', '.join(able) or 'none'}"
    )
