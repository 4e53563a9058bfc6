"""Costs of both sides, as a person reads them."""

import math

from mnist_fp8.core.plain import clean
from mnist_fp8.gate.reports import values
from mnist_fp8.gate.verdict.costs import CostChange

NO_VERDICT_RESTS_ON = "No verdict rests on costs: they come from a few repetitions on one machine."


def amount(value: float, unit: str) -> str:
    """A time or an amount of memory, as a person reads it."""
    if unit == "bytes":
        return f"{value / 2**20:,.1f} MiB"
    for least, factor, name in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs")):
        if unit == "s" and value >= least:
            return f"{value * factor:.3g} {name}"
    return f"{values.number(value)} {unit}"


def cost_cells(cost: CostChange) -> list[str]:
    """Name, old and new amount, the change, and how far repetitions lie apart."""
    amounts = (amount(each, cost.unit) for each in (cost.old, cost.new))
    changed = f"{round(100 * (cost.ratio - 1)):+,}%" if math.isfinite(cost.ratio) else "unknown"
    apart = f"± {cost.spread:.0%}" if cost.repetitions > 1 else "measured once"
    return [clean(cost.name), *amounts, changed, apart]
