"""The table of the layers that can be judged."""

import pytest

from mnist_fp8 import subjects
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.subjects import DEFAULT, SUBJECTS, VARIABLE, named_in, parse_subjects


def test_table_names_the_subjects_that_there_are_in_their_order() -> None:
    assert tuple(SUBJECTS) == tuple(subject.name for subject in subjects.SUBJECTS), "add its names to core/subjects.py"
    assert set(DEFAULT) <= SUBJECTS.keys()


@pytest.mark.parametrize("name", SUBJECTS)
def test_name_is_one_part_of_a_key(name: str) -> None:
    """And so is that of a case."""
    assert not set(name) & set("/,*")
    assert not any("/" in case.name for case in subjects.find_subject(name).cases)


def test_asked_for_are_those_of_a_list_and_the_one_that_all_else_is_about() -> None:
    assert parse_subjects("LayerNormMLP, LayerNorm") == ("DenseGeneral", "LayerNorm", "LayerNormMLP")
    assert parse_subjects("all") == parse_subjects("LayerNorm,all") == tuple(SUBJECTS)


@pytest.mark.parametrize("text", ["LayerNormMPL", "", "LayerNorm,,LayerNormMLP", "layernorm"])
def test_subject_that_there_is_not_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^there is no subject '\w*'; there are DenseGeneral, .*, and all$"):
        parse_subjects(text)


def test_environment_says_which_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert subjects.asked_subjects() == subjects.SUBJECTS
    monkeypatch.setenv(VARIABLE, "LayerNorm")
    assert [subject.name for subject in subjects.asked_subjects()] == ["DenseGeneral", "LayerNorm"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("transformer_engine.jax.flax.LayerNormMLP", "LayerNormMLP"),
        ("transformer_engine.jax.flax.module.LayerNormMLP.__call__", "LayerNormMLP"),
        ("transformer_engine.jax.layernorm_mlp.layernorm_mlp", "LayerNormMLP"),
        ("transformer_engine.jax.dense.dense", "dense.dense"),
        ("transformer_engine.jax.flax.make_dot_general_cls", "make_dot_general_cls"),
        ("transformer_engine.jax.flax.module.TransformerEngineBase", "TransformerEngineBase"),
    ],
)
def test_path_in_transformer_engine_leads_to_a_subject(path: str, name: str) -> None:
    assert named_in([path]) == (name,)


def test_other_paths_lead_to_none() -> None:
    assert named_in(["transformer_engine.jax.autocast", "transformer_engine.jax.flax.Softmax"]) == ()
