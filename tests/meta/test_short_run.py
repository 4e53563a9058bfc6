"""No program is run twice on the same data, and no other program is taken for it."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te import dense
from mnist_fp8.training import runs
from support import short_run
from support.short_run import Trained, trained

pytestmark = pytest.mark.host

TINY = dataclasses.replace(short_run.short_run("te-fp8-delayed"), train_size=32, test_size=480)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(short_run, "cache_dir", lambda: tmp_path)


def test_run_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(TINY)
    monkeypatch.setattr(runs, "train_and_evaluate", None)  # whoever calls it fails
    assert trained(TINY) == first
    with pytest.raises(TypeError):  # Control: another seed is another run
        trained(dataclasses.replace(TINY, seed=2))


def test_numbers_that_are_not_finite_are_kept_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_run, "_train", lambda _config: Trained("diverged", float("nan"), float("nan")))
    first, second = trained(TINY), trained(TINY)
    assert first.status == second.status == "diverged"
    assert second.test_accuracy != second.test_accuracy, "NaN stays NaN, which passes no threshold"


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"digest": "x", "numbers": {}}', None], ids=str)
def test_result_that_was_edited_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    monkeypatch.setattr(short_run, "_key", lambda _config: "key")
    monkeypatch.setattr(short_run, "_train", lambda _config: Trained("complete", 0.5, 0.25))
    trained(TINY)
    (file,) = tmp_path.rglob("key.json")
    file.write_text(file.read_text().replace("0.25", "0.99") if content is None else content)
    assert trained(TINY) == Trained("complete", 0.5, 0.25)


@pytest.mark.parametrize("name", ["XLA_FLAGS", "JAX_ENABLE_X64", "NVTE_X"])
def test_other_variables_are_another_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = short_run._key(TINY)
    monkeypatch.setenv(name, "1")
    assert short_run._key(TINY) != before


CHANGES: dict[str, Any] = {
    "another recipe": dataclasses.replace(TINY, recipe=RecipeConfig(margin=1)),
    "another learning rate": dataclasses.replace(TINY, learning_rate=0.02),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_configuration_is_another_run(change: str) -> None:
    assert short_run._key(CHANGES[change]) != short_run._key(TINY)


def test_key_is_the_same_every_time() -> None:
    # Control.
    assert short_run._key(TINY) == short_run._key(TINY)


def test_another_program_of_transformer_engine_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that computes something else, with the same parameters."""
    before = short_run._key(TINY)
    layer = dense._dense_class()
    call = layer.__call__
    monkeypatch.setattr(layer, "__call__", lambda self, x: call(self, x) * jnp.bfloat16(1.5))
    jax.clear_caches()  # in one process, a model is traced once
    assert short_run._key(TINY) != before


def test_other_first_parameters_are_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before = short_run._key(TINY)
    make = te.dense_general
    monkeypatch.setattr(te, "dense_general", lambda **fields: make(bias_init=lambda *_: jnp.ones(_[1]), **fields))
    jax.clear_caches()  # another release would be another process
    try:
        assert short_run._key(TINY) != before
    finally:
        jax.clear_caches()
