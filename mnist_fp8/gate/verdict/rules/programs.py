"""What it means that the float8 of a program, or its quantized tensors, differ."""

from collections import Counter

from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Rule, breaks, changes
from mnist_fp8.record.entries import (
    Codes,
    Compiled,
    Formats,
    Products,
    Value,
)
from mnist_fp8.record.keys import BF16, OUTSIDE

PRODUCT_LOST = breaks(
    "float8-product-lost",
    "float8 products lost",
    "Matrix products that multiplied float8 operands no longer do, or do it in other formats.",
    "Do not upgrade: FP8 is not computed as the recipe says.",
)
FORMAT_LOST = breaks(
    "float8-format-lost",
    "float8 format lost",
    "Tensors are no longer quantized to a format that they were in.",
    "Do not upgrade: FP8 is not computed as the recipe says.",
)
OUTSIDE_AUTOCAST = breaks(
    "float8-outside-autocast",
    "float8 without autocast",
    "BF16 layers compute in float8 without autocast.",
    "Do not upgrade.",
)
REWRITTEN = changes(
    "program-rewritten",
    "program written differently",
    "The program has other products, operands or custom calls, and as much float8 as before.",
    "Nothing for correctness; adapt checks of yours that read jaxprs or HLO. Measure speed on a GPU.",
)
CODES_WRONG = breaks(
    "codes-wrong",
    "quantized tensors wrong",
    "Tensors are not quantized as scale and format say.",
    "Do not upgrade; the claims say more.",
)
CODES_RIGHT = changes(
    "codes-closer",
    "quantized tensors closer to the oracle's",
    "Fewer codes than before differ from what scale and format say.",
    "Expect results that are not bitwise the same, and better ones.",
)
CODES_CHANGED = changes(
    "codes-changed",
    "quantized tensors changed",
    "The same tensors are quantized to other codes.",
    "Expect results that are not bitwise the same.",
)
RULES = (PRODUCT_LOST, FORMAT_LOST, OUTSIDE_AUTOCAST, REWRITTEN, CODES_WRONG, CODES_RIGHT, CODES_CHANGED)


def rule_of_float8(change: EntryChange) -> Rule:
    """The rule for products, quantized types or a compiled program."""
    if change.mode in (OUTSIDE, BF16):
        return OUTSIDE_AUTOCAST if _float8(change.new) - _float8(change.old) else REWRITTEN
    if isinstance(change.old, Products) and isinstance(change.new, Products):
        fewer = _operands(change.old) - _operands(change.new)
        return PRODUCT_LOST if fewer or _plain(change.new) > _plain(change.old) else REWRITTEN
    return FORMAT_LOST if _float8(change.old) - _float8(change.new) else REWRITTEN


def _operands(products: Products) -> Counter[tuple[str, ...]]:
    """Quantized products by the formats of their operands, whichever is left."""
    counts: Counter[tuple[str, ...]] = Counter()
    for product in products.products:
        counts[tuple(sorted((product.lhs, product.rhs)))] += product.count * product.quantized
    return counts


def _plain(products: Products) -> int:
    """How many products have an operand that is not quantized."""
    return sum(product.count for product in products.products if not product.quantized)


def _float8(value: Value | None) -> Counter[str]:
    """How often each quantized format is there."""
    match value:
        case Formats(names) | Compiled(formats=names):
            return Counter(names)
        case Products(products):
            operands = [(product.lhs, product.rhs) for product in products if product.quantized]
            return Counter(name for pair in operands for name in pair)
    return Counter()


def rule_of_codes(change: EntryChange) -> Rule:
    """The rule for a quantized tensor."""
    old, new = (side.wrong if isinstance(side, Codes) else None for side in (change.old, change.new))
    if new and (old is None or new > old):
        return CODES_WRONG
    return CODES_RIGHT if old and new is not None and new < old else CODES_CHANGED
