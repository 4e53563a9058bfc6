"""The recipe that was asked for is the recipe of the products, in each layer of TE that a model calls."""

from collections.abc import Iterator, Sequence

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model.case import Case, Factory
from mnist_fp8.model.layers import lacking, matches, unmatched
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import case_of, others, traced
from mnist_fp8.oracle import blocks
from mnist_fp8.oracle.dense import formats_of
from mnist_fp8.programs.jaxprs import Gemm, is_quantized, quantized_dtypes
from mnist_fp8.te.calls import Site


def float8_problems(factory: Factory, recipe: RecipeConfig | None) -> list[Problem]:
    """Of a model's forward and backward pass."""
    jaxpr, sites = traced(factory, recipe)
    problems = site_problems(sites, case_of(factory, recipe), recipe)
    problems += _lost(factory, recipe, sites)
    if recipe is None:  # nothing of the whole program may be quantized then, whoever does it
        formats = quantized_dtypes(jaxpr)
        problems += [Problem("the model", f"has tensors of {name}, with no recipe") for name in sorted(formats)]
    return problems


def _lost(factory: Factory, recipe: RecipeConfig | None, sites: Sequence[Site]) -> Iterator[Problem]:
    """Layers that are TE's in another mode alone, or by the case. In BF16, not each has to be (`site_problems`)."""
    if recipe is None or not sites:
        return
    for pattern in unmatched(case_of(factory, recipe).layers, sites):
        what = "calls no layer of Transformer Engine that multiplies matrices; the case says that it does"
        yield Problem(pattern, what)
    for other in others(factory, recipe):
        for site in lacking(traced(factory, other)[1], sites):
            asked = other.name if other else "no recipe"
            yield Problem(str(site), f"is a layer of Transformer Engine with {asked}, and none with {recipe.name}")


def site_problems(sites: Sequence[Site], case: Case, recipe: RecipeConfig | None) -> list[Problem]:
    """Layers with products of other operands than the recipe's."""
    if not sites and recipe is not None:  # before 2.5, a layer that does not quantize is not one of TE's functions
        what = "calls no layer of Transformer Engine that multiplies matrices, or was compiled beforehand"
        return [Problem("the model", what)]
    return [problem for site in dict.fromkeys(sites) for problem in _problems(site, case, recipe)]


def _problems(site: Site, case: Case, recipe: RecipeConfig | None) -> Iterator[Problem]:
    exempt = matches(site, case.in_bf16)
    asked = _asked(recipe)
    rotates = recipe is not None and blocks.rotates(recipe)
    for product in [product for product in site.products if not (rotates and product.rotates)] or site.products:
        wanted = None if exempt or recipe is None else _formats(product, recipe)
        operands = tuple(sorted((product.lhs, product.rhs)))
        if (operands != wanted) if wanted else any(map(is_quantized, operands)):
            way = "backward" if product.backward else "forward"
            due = " by ".join(wanted) if wanted else "operands that are not quantized"
            yield Problem(str(site), f"multiplies {product.lhs} by {product.rhs} {way}; expected {due} with {asked}")


def _asked(recipe: RecipeConfig | None) -> str:
    """What decides the formats."""
    if recipe is None:
        return "no recipe"
    return f"{recipe.name} and fp8_format={recipe.fp8_format}" if recipe.fp8_format else recipe.name


def _formats(product: Gemm, recipe: RecipeConfig) -> tuple[str, ...]:
    """The formats of the operands in which a recipe has a product computed, in the order of their names."""
    formats = formats_of(recipe)
    return tuple(sorted((formats["x"], formats["grad" if product.backward else "kernel"])))
