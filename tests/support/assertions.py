"""Assertions that say what broke: where, what was found, what was expected, and how far off it is.

NaN never passes unless the expected value, from an oracle, is NaN in that very place and the caller allows it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mnist_fp8.oracle.dense import Array


def assert_close(*, where: str, actual: Any, expected: Any, tolerance: Any) -> None:
    """Compare two tensors element by element.

    Args:
        where: what is compared, for the message.
        actual: what was computed.
        expected: what it should be; same shape.
        tolerance: largest allowed absolute difference, a number or an array of the same shape.

    Raises:
        AssertionError: shapes differ, or an element is further off than its tolerance, or not a number.
    """
    __tracebackhide__ = True
    found, wanted = _float64(actual), _float64(expected)
    assert found.shape == wanted.shape, f"{where}: shape={found.shape}, but should be {wanted.shape}"
    allowed = np.broadcast_to(np.asarray(tolerance, np.float64), wanted.shape)
    error = np.abs(found - wanted)
    wrong = ~(error <= allowed)  # not "error > allowed": that is false for NaN
    if wrong.any():
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(np.isnan(error), np.inf, error / allowed)
        worst = np.unravel_index(np.argmax(np.where(wrong, excess, -1)), wanted.shape)
        index = [int(i) for i in worst]
        message = (
            f"{where}: {int(wrong.sum())} of {wrong.size} elements are wrong; worst {index}={found[worst]:.6g},"
            f" but should be {wanted[worst]:.6g} (tolerance {allowed[worst]:.3g})"
        )
        raise AssertionError(message + _guess(found, wanted))


def assert_equal(*, where: str, actual: Any, expected: Any, nan: bool = False) -> None:
    """Compare two tensors exactly.

    Args:
        where: what is compared.
        actual: what was computed.
        expected: what it should be.
        nan: whether the expected tensor may hold NaN, which must then be found in the same places.

    Raises:
        AssertionError: shape or an element differs.
        ValueError: ``expected`` holds NaN and that was not allowed.
    """
    __tracebackhide__ = True
    found, wanted = _float64(actual), _float64(expected)
    if np.isnan(wanted).any() and not nan:
        raise ValueError(f"{where}: the expected value holds NaN; was that meant? Then pass nan=True")
    assert found.shape == wanted.shape, f"{where}: shape={found.shape}, but should be {wanted.shape}"
    if not np.array_equal(found, wanted, equal_nan=True):
        wrong = ~((found == wanted) | (np.isnan(found) & np.isnan(wanted)))
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        shown = f"; {_short(found)}, but should be {_short(wanted)}" if wanted.size <= 16 else ""
        message = (
            f"{where}: {int(wrong.sum())} of {wrong.size} elements differ; first {list(first)}={float(found[first])!r},"
            f" but should be {float(wanted[first])!r}{shown}"
        )
        raise AssertionError(message + _guess(found, wanted))


def assert_close_norm(*, where: str, actual: Any, expected: Any, tolerance: float) -> None:
    """Compare two tensors as a whole: the norm of their difference, relative to the expected one's.

    Args:
        where: what is compared.
        actual: what was computed.
        expected: what it should be; not all zero.
        tolerance: largest allowed relative norm.

    Raises:
        AssertionError: shapes differ, or they are further apart, or something is not a number.
        ValueError: the expected tensor is zero, so that there is nothing to be relative to.
    """
    __tracebackhide__ = True
    found, wanted = _float64(actual), _float64(expected)
    assert found.shape == wanted.shape, f"{where}: shape={found.shape}, but should be {wanted.shape}"
    norm = float(np.linalg.norm(wanted))
    if not norm:
        raise ValueError(f"{where}: the expected tensor is zero; compare with assert_equal instead?")
    error = float(np.linalg.norm(found - wanted)) / norm
    if not error <= tolerance:  # not "error > tolerance": that is false for NaN
        message = f"{where}: relative difference={error:.4g}, but should be at most {tolerance:.4g}"
        raise AssertionError(message + _guess(found, wanted))


def assert_trees_equal(*, where: str, actual: Any, expected: Any) -> None:
    """Compare two trees of tensors exactly, leaf by leaf; every leaf that differs is listed."""
    __tracebackhide__ = True
    _compare_trees(assert_equal, where, actual, expected)


def assert_trees_close_norm(*, where: str, actual: Any, expected: Any, tolerance: float) -> None:
    """Compare two trees of tensors leaf by leaf with `assert_close_norm`; every leaf that differs is listed."""
    __tracebackhide__ = True
    _compare_trees(functools.partial(assert_close_norm, tolerance=tolerance), where, actual, expected)


def _compare_trees(compare: Callable[..., None], where: str, actual: Any, expected: Any) -> None:
    __tracebackhide__ = True
    found, wanted = _leaves(actual), _leaves(expected)
    problems = [f"{where}: {path} is missing" for path in wanted if path not in found]
    problems += [f"{where}: {path} is unexpected" for path in found if path not in wanted]
    for path in [path for path in wanted if path in found]:
        try:
            compare(where=f"{where}: {path}", actual=found[path], expected=wanted[path])
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_structure(*, where: str, actual: Mapping[str, Any], expected: Mapping[str, tuple[Any, str]]) -> None:
    """Compare names, shapes and dtypes of a flat mapping of arrays; all offenders are listed.

    Args:
        where: what is compared.
        actual: arrays by name.
        expected: (shape, dtype name) by name.
    """
    __tracebackhide__ = True
    found = {name: (tuple(array.shape), str(array.dtype)) for name, array in actual.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unexpected" for name in found if name not in expected]
    problems += [
        f"{name}={found[name]}, but should be {want}"
        for name, want in expected.items()
        if name in found and found[name] != (tuple(want[0]), want[1])
    ]
    assert not problems, f"{where}: " + "; ".join(problems)


def _float64(array: Any) -> Array:
    return np.asarray(array).astype(np.float64)


def _short(array: Array) -> str:
    return np.array2string(array, precision=9, separator=", ", max_line_width=10_000)


def _guess(found: Array, wanted: Array) -> str:
    """Name a pattern that explains the whole difference, if there is one."""
    if not np.isfinite(found).all():
        return "; found values that are not finite"
    if not found.any() and wanted.any():
        return "; all that was found is zero"
    norm = float(np.sum(wanted * wanted))
    if norm > 0:
        factor = float(np.sum(found * wanted)) / norm
        residual = np.linalg.norm(found - factor * wanted) / np.sqrt(norm)
        if residual < 0.05 and abs(factor - 1) > 0.1:
            return f"; as a whole it is {factor:.4g} times what was expected"
    return ""
