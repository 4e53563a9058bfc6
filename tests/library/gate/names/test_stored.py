"""The names that come with the package: of all releases, and as their sources have them."""

import dataclasses
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import pytest

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.names import noting, stored
from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.gate.names.stored import store_names, stored_names, stored_releases
from mnist_fp8.gate.releases import catalogue, uv
from mnist_fp8.record.names import Passed
from support.packages import installed, package
from support.subprocesses import run_code

JAX = "transformer_engine.jax"
RECIPE = "transformer_engine.common.recipe"
ALL = stored_releases()


def test_installed_release_is_stored_as_its_source_has_it() -> None:
    release = catalogue.most_similar_release(installed())
    assert catalogue.known_digests()[release] == catalogue.file_digests(installed()), "Control: it is that release"
    read = read_names(installed())  # other frameworks, whose folders an installation may lack, are left unread
    assert dataclasses.replace(stored_names(release), unread=read.unread) == read
    assert {path: why for path, why in read.unread.items() if path.startswith(JAX)} == {
        path: why for path, why in stored_names(release).unread.items() if path.startswith(JAX)
    }


def test_all_known_releases_are_stored() -> None:
    assert catalogue.releases() == ALL


def test_release_that_is_not_known_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^the names of 1\.2 are not known; known are those of 1\.10\.0, "):
        stored_names("1.2")


def test_releases_share_what_they_have_in_common() -> None:
    assert stored.NAMES_FILE.stat().st_size < 100_000
    assert stored_names("2.16.0").definitions == stored_names("2.16.1").definitions
    of_both = [stored_names(release).definitions[f"{JAX}.sharding"] for release in ("2.16.0", "2.16.1")]
    assert of_both[0] is of_both[1]


def test_stored_names_need_neither_griffe_nor_jax() -> None:
    run_code("""
        import sys
        from mnist_fp8.gate.names.stored import stored_names, stored_releases
        assert all(stored_names(release).find("transformer_engine.jax") for release in stored_releases())
        assert not sys.modules.keys() & {"griffe", "jax", "transformer_engine"}
    """)


def test_what_is_stored_is_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from jax import P\nclass A:\n    def f(self, x=1): assert self.f(*x)\n"
    one = read_names(package(tmp_path / "one", {"jax/x.py": code}))
    other = read_names(package(tmp_path / "other", {"jax/x.py": code + "def __getattr__(name): ...", "debug.py": ""}))
    monkeypatch.setattr(stored, "NAMES_FILE", tmp_path / "names.json.xz")
    store_names(stored.NAMES_FILE, {"1.0": one, "2.0": other})
    stored_names.cache_clear()
    try:
        assert (stored_names("1.0"), stored_names("2.0")) == (one, other)
    finally:
        stored_names.cache_clear()
    definitions = json.loads(lzma.decompress(stored.NAMES_FILE.read_bytes()))["definitions"]
    assert len(definitions) == len({json.dumps(each) for each in definitions})


# --- one command notes a new release ---------------------------------------------------------------------------------


def test_a_release_is_noted_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*arguments: str, what: str) -> str:
        assert "2.2.0" in what
        package(Path(arguments[arguments.index("--target") + 1]), {"jax/x.py": "def f(): ..."})
        return ""

    digests, names = tmp_path / "releases.json", tmp_path / "names.json.xz"
    digests.write_text('{"2.10.0": {"a": "1"}, "1.10.0": {}}')
    monkeypatch.setattr(noting, "RELEASES_FILE", digests)
    monkeypatch.setattr(noting, "NAMES_FILE", names)
    monkeypatch.setattr(uv, "run", download)
    store_names(names, {release: stored_names(release) for release in ("1.10.0", "2.10.0")})
    monkeypatch.setattr(stored, "stored_releases", lambda: ("1.10.0", "2.10.0"))
    noting.note_releases(["2.2.0"])
    noted = json.loads(digests.read_text())
    assert list(noted) == ["1.10.0", "2.2.0", "2.10.0"]
    assert noted["2.2.0"].keys() == {"__init__.py", "jax/__init__.py", "jax/x.py"}
    assert noted["2.2.0"]["__init__.py"] == "e3b0c44298fc1c14"
    assert noted["2.10.0"] == {"a": "1"}
    releases = json.loads(lzma.decompress(names.read_bytes()))["releases"]
    assert list(releases) == ["1.10.0", "2.2.0", "2.10.0"]
    assert f"{JAX}.x.f" in releases["2.2.0"]["definitions"]
    assert len(releases["2.10.0"]["definitions"]) == len(stored_names("2.10.0").definitions)


# --- facts, taken from the sources by hand ---------------------------------------------------------------------------

USED = {  # what public code uses of Transformer Engine for JAX, with the first release that has it
    "flax.transformer.DotProductAttention": "1.10.0",
    "flax.module.TransformerEngineBase": "1.10.0",
    "flax.module.TransformerEngineBase.generate_quantizer_set": "2.3.0",
    "flax.make_dot_general_cls": "2.12.0",
    "flax.make_grouped_dense_cls": "2.14.0",
    "attention.SequenceDescriptor": "2.1.0",
    "attention.ReorderStrategy": "2.2.0",
    "attention.reorder_causal_load_balancing": "1.11.0",
    "attention.fused_attn": "1.10.0",
    "attention.AttnBiasType": "1.10.0",
    "attention.AttnMaskType": "1.10.0",
    "attention.QKVLayout": "1.10.0",
    "sharding.MeshResource": "1.10.0",
    "sharding.global_shard_guard": "1.10.0",
    "dense.dense": "2.3.0",
    "cpp_extensions.CollectiveOp": "2.8.0",
    "cpp_extensions.CollectiveOpSet": "2.8.0",
    "cpp_extensions.noop_collective_op_set": "2.8.0",
    "cpp_extensions.collective_gemm_bootstrap": "2.8.0",
    "router.fused_topk_with_score_function": "2.14.0",
    "router.fused_moe_aux_loss": "2.14.0",
    "router.ScoreFunction": "2.14.0",
    "permutation.token_dispatch": "2.11.0",
    "permutation.token_combine": "2.11.0",
    "permutation.sort_chunks_by_index": "2.11.0",
    "quantize.noop_quantizer_set": "2.3.0",
    "quantize.QuantizerFactory": "2.3.0",
    "quantize.ScalingMode": "2.3.0",
    "quantize.TensorSource": "2.8.0",
    "quantize.get_quantize_config_with_recipe": "2.9.0",
    "quantize.is_quantize_recipe_supported": "2.14.0",
    "moe.moe": "2.17.0",
    "moe.record_ep_bootstrap_signature_for_moe": "2.18.0",
    "ep.ep_bootstrap": "2.17.0",
    "autocast": "2.9.0",
}
RECIPES = {
    "DelayedScaling": "1.10.0",
    "MXFP8BlockScaling": "2.1.0",
    "Float8CurrentScaling": "2.2.0",
    "NVFP4BlockScaling": "2.8.0",
}
SINCE = {f"{JAX}.{name}": since for name, since in USED.items()}
SINCE |= {f"{RECIPE}.{name}": since for name, since in RECIPES.items()}
HAVE = {path: ALL[ALL.index(since) :] for path, since in SINCE.items()} | {
    # In 2.4.0 its source is there, as a string.
    f"{JAX}.dense.grouped_dense": ("2.3.0", *ALL[ALL.index("2.5.0") :]),
    f"{JAX}.cpp_extensions.ep_bootstrap": (),
}


@pytest.mark.parametrize("path", HAVE)
def test_used_name_is_in_the_releases_that_have_it(path: str) -> None:
    found = {release: stored_names(release).find(path) for release in ALL}
    assert tuple(release for release, leads in found.items() if leads) == HAVE[path]
    assert all(leads.definition and leads.is_certain for leads in found.values() if leads)


def test_all_used_names_are_looked_at() -> None:
    assert len(HAVE) == 41


def releases_with(path: str, parameter: str) -> Sequence[str]:
    found = []
    for release in ALL:
        leads = stored_names(release).find(f"{JAX}.{path}")
        if leads and leads.definition and parameter in {each.name for each in leads.definition.signature.parameters}:
            found.append(release)
    return found


@pytest.mark.parametrize(
    ("path", "parameter", "expected"),
    [
        ("attention.SequenceDescriptor.from_segment_ids_and_pos", "is_thd", ["2.12.0", "2.13.0"]),
        ("attention.SequenceDescriptor.from_segment_ids_and_pos", "is_segment_ids_reordered", ["2.12.0", "2.13.0"]),
        ("attention.fused_attn", "mask", [*ALL[: ALL.index("2.1.0")]]),
        ("attention.fused_attn", "sequence_descriptor", [*ALL[ALL.index("2.1.0") :]]),
        ("flax.module.TransformerEngineBase.generate_quantizer_set", "n_groups", [*ALL[ALL.index("2.14.0") :]]),
        ("flax.DenseGeneral", "name", [*ALL]),
    ],
)
def test_argument_is_in_the_releases_that_have_it(path: str, parameter: str, expected: list[str]) -> None:
    assert releases_with(path, parameter) == expected


def test_hook_is_called_with_what_overrides_have_to_accept() -> None:
    def passed(release: str) -> set[Passed]:
        leads = stored_names(release).find(f"{JAX}.flax.module.TransformerEngineBase.generate_quantizer_set")
        assert leads
        assert leads.definition
        return set(leads.definition.passed)

    assert Passed(1, ("fp8_recipe", "n_groups"), by=f"{JAX}.flax.moe._MoEBlock") in passed("2.20.2")
    assert Passed(0, ("n_groups",)) in passed("2.14.0"), "by a function that it is handed to"
    assert not [way for way in passed("2.13.0") if "n_groups" in way.keywords]


def test_members_keep_the_order_and_the_values_of_the_source() -> None:
    names = stored_names("2.20.2")
    members = {
        path.rpartition(".")[2]: definition.signature.value
        for path, definition in names.definitions.items()
        if path.startswith(f"{JAX}.attention.AttnBiasType.")
    }
    assert members == {
        "NO_BIAS": "NVTE_Bias_Type.NVTE_NO_BIAS",
        "PRE_SCALE_BIAS": "NVTE_Bias_Type.NVTE_PRE_SCALE_BIAS",
        "POST_SCALE_BIAS": "NVTE_Bias_Type.NVTE_POST_SCALE_BIAS",
    }
