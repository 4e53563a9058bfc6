"""The record of an installation: what is measured and run for it, what is kept, and what is taken from there."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.capability import Capability
from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.core.model import VARIABLES as MODEL_VARIABLES
from mnist_fp8.core.subjects import VARIABLE
from mnist_fp8.gate.names import reading
from mnist_fp8.gate.releases import environments, staging
from mnist_fp8.gate.releases.editions import Edition, EditionKind
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.processes import Ended
from mnist_fp8.gate.runner import measuring, suite
from mnist_fp8.gate.runner.installation import Installation, examine
from mnist_fp8.gate.runner.measuring import EVERYTHING
from mnist_fp8.gate.runner.model import Model
from mnist_fp8.gate.runner.store import Attempt, record_file, unexamined
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import Failure, Signature, Text
from mnist_fp8.record.names import Names
from mnist_fp8.record.record import Record
from support.arranged import NAMES, RELEASE, arrange_measurements, environment


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What a measurement ends with, and the arguments of each that was made."""
    return arrange_measurements(monkeypatch, tmp_path)


def measured(where: Environment | None = None, *, rerun: bool = False) -> Record:
    return examine(where or environment(), entries=EVERYTHING, rerun=rerun)


def fails(printed: dict[str, Any], code: int, err: str, *, timed_out: bool = False) -> Record:
    printed |= {"ended": Ended(code, "", err, 1.0, timed_out=timed_out), "measured": None}
    return measured()


# --- entries ---------------------------------------------------------------------------------------------------------


def test_record_has_what_was_measured_and_the_names(printed: dict[str, Any]) -> None:
    found = measured()
    assert printed["made"] == [[]]
    assert found.entries == {
        "bits/R/t": Text("1"),
        "api/transformer_engine.f": Signature("function"),
        "api/transformer_engine.g": Signature("class"),
    }
    assert (found.te, found.version, found.run, found.arguments) == ("2.3.0", "2.3.0", "host", ("2.3.0",))
    assert (found.problem, found.settings, found.environment["jax"]) == ("", "m", "0.10.2")


def test_record_is_kept_for_the_same_environment_and_code(
    printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured()
    assert measured() == first
    assert len(printed["made"]) == 1
    measured(environment(digest="other"))
    assert len(printed["made"]) == 2, "another Transformer Engine"
    monkeypatch.setattr(staging, "measuring_digest", lambda: "n")
    measured()
    assert len(printed["made"]) == 3, "other code that measures"
    monkeypatch.setenv("NVTE_FP8_DPA_BWD", "1")
    measured()
    assert len(printed["made"]) == 4, "a variable that changes a run"
    measured(rerun=True)
    assert len(printed["made"]) == 5, "asked for"


def test_kept_record_is_named_as_it_is_asked_for(printed: dict[str, Any]) -> None:
    measured()
    folder = Edition(EditionKind.FOLDER, "/mine", "2.3.0")
    found = measured(environment(folder))
    assert (found.te, found.arguments) == ("folder /mine", ("/mine",))
    assert len(printed["made"]) == 1


def test_damaged_record_is_made_again(printed: dict[str, Any], tmp_path: Path) -> None:
    measured()
    (file,) = (tmp_path / "mnist_fp8" / "records").glob("*.json")
    file.write_text("{")
    measured()
    assert len(printed["made"]) == 2
    assert json.loads(file.read_text())["record"]["te"] == "2.3.0"


@pytest.mark.parametrize(("former", "new"), [("2.3.0", "2.9.9"), ('"text": "1"', '"text": "2"'), ('"d', '"e')])
def test_kept_record_that_was_edited_is_made_again(
    printed: dict[str, Any], tmp_path: Path, former: str, new: str
) -> None:
    measured()
    (file,) = (tmp_path / "mnist_fp8" / "records").glob("*.json")
    assert former in file.read_text()
    file.write_text(file.read_text().replace(former, new))
    assert measured().entries["bits/R/t"] == Text("1")
    assert len(printed["made"]) == 2


def test_kept_record_of_another_is_not_taken(printed: dict[str, Any], tmp_path: Path) -> None:
    measured()
    (file,) = (tmp_path / "mnist_fp8" / "records").glob("*.json")
    measured(environment(digest="other"))
    (other,) = set(file.parent.glob("*.json")) - {file}
    other.write_bytes(file.read_bytes())
    measured(environment(digest="other"))
    assert len(printed["made"]) == 3


def test_what_took_too_long_is_measured_once_more_and_not_kept(printed: dict[str, Any], tmp_path: Path) -> None:
    hung = Ended(-15, "", "", 1.0, timed_out=True)
    printed |= {"ended": hung, "measured": None}
    assert measured().problem == "it hung: not done after 600 s"
    assert len(printed["made"]) == 2
    assert not list(tmp_path.rglob("records/*.json"))


def test_measuring_that_imported_another_transformer_engine_is_no_result(
    printed: dict[str, Any], tmp_path: Path
) -> None:
    imported = printed["measured"]["imported"] | {"transformer_engine": "/clone/transformer_engine/__init__.py"}
    printed["measured"] = printed["measured"] | {"imported": imported}
    with pytest.raises(EnvError, match=r"2\.3\.0 was not judged: its run imported transformer_engine from /clone"):
        measured()
    assert not list(tmp_path.rglob("records/*.json"))


def test_measuring_for_which_there_was_no_room_is_no_result(printed: dict[str, Any], tmp_path: Path) -> None:
    failure = {"kind": "failure", "type": "OSError", "message": "[Errno 28] No space left on device: 'x'"}
    printed["measured"] = printed["measured"] | {"entries": {"bits/R": failure}}
    with pytest.raises(EnvError, match=r"disk or memory ran out: .*No space left on device"):
        measured()
    assert not list(tmp_path.rglob("records/*.json"))


VARIABLES = {
    "NVTE_X": True,
    "XLA_FLAGS": True,
    "JAX_PLATFORMS": True,
    "JAX_ENABLE_X64": False,
    "FLAX_PROFILE": False,
    "CUDA_VISIBLE_DEVICES": True,
    "NVIDIA_TF32_OVERRIDE": True,
    "LD_LIBRARY_PATH": True,
    "OMP_NUM_THREADS": True,
    "XLA_PYTHON_CLIENT_MEM_FRACTION": True,
    "PYTHONOPTIMIZE": False,
    "PYTEST_ADDOPTS": False,
    "HYPOTHESIS_PROFILE": False,
    "LD_PRELOAD": False,
    "TERM": False,
    "TFDS_DATA_DIR": False,
}


@pytest.mark.parametrize(("name", "reaches"), VARIABLES.items())
def test_variable_is_part_of_the_key_or_does_not_reach_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str, *, reaches: bool
) -> None:
    before = record_file(environment(), "x")
    monkeypatch.setenv(name, "--new")
    assert (record_file(environment(), "x") != before) is reaches
    assert (environment().environ.get(name) == "--new") is reaches
    assert environment().program_environ.get(name) == ("--new" if not name.startswith(("PYTHON", "PYTEST")) else None)


def test_layers_that_are_asked_for_reach_the_run_and_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "prepare", lambda *_, **__: environment())
    monkeypatch.delenv(VARIABLE, raising=False)
    plain = Installation(RELEASE).prepare()
    assert VARIABLE not in plain.environ
    some, others = (Installation(RELEASE, layers=names).prepare() for names in (("LayerNorm",), ("LayerNorm", "X")))
    assert (some.environ[VARIABLE], others.environ[VARIABLE]) == ("LayerNorm", "LayerNorm,X")
    assert len({record_file(each, "x") for each in (plain, some, others)}) == 3


def test_capability_that_is_asked_for_reaches_the_run_and_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "prepare", lambda *_, **__: environment())
    monkeypatch.delenv(CAPABILITY, raising=False)
    made = [Installation(RELEASE, capability=capability).prepare() for capability in (None, *Capability)]
    assert [each.environ.get(CAPABILITY) for each in made] == [None, "9.0", "10.0"]
    assert len({record_file(each, "x") for each in made}) == 3


MODEL = Model("ours.model:case", Path("/mine"), "c1")


def prepared(monkeypatch: pytest.MonkeyPatch, model: Model | None) -> Environment:
    monkeypatch.setattr(environments, "prepare", lambda *_, **__: environment())
    return Installation(RELEASE, model=model).prepare()


def test_model_and_its_code_reach_the_run_and_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    models = (None, MODEL, dataclasses.replace(MODEL, contents="c2"), Model("ours.model:other", Path("/mine"), "c1"))
    made = [prepared(monkeypatch, model) for model in models]
    told = [{name: where.environ[name] for name in MODEL_VARIABLES if name in where.environ} for where in made]
    assert told == [{}, *(model.variables for model in models if model)]
    assert len({record_file(each, "x") for each in made}) == len(models)


def test_model_that_the_shell_names_reaches_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says what code it is then."""
    plain = record_file(environment(), "x")
    for name in MODEL_VARIABLES:
        monkeypatch.setenv(name, "of the shell")
    assert not set(MODEL_VARIABLES) & set(environment().environ)
    assert record_file(environment(), "x") == plain
    installed = prepared(monkeypatch, Model("others:case")).environ
    assert {name: installed[name] for name in MODEL_VARIABLES if name in installed} == {
        MODEL_VARIABLES[0]: "others:case"
    }


def test_environment_is_made_with_what_the_model_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def prepare(_edition: Edition, *, packages: Sequence[str], imported: Sequence[str], **_options: Any) -> Environment:
        asked.append((packages, imported))
        return environment()

    monkeypatch.setattr(environments, "prepare", prepare)
    for model in (None, dataclasses.replace(MODEL, packages=("einops",)), Model("others.net:case")):
        Installation(RELEASE, model=model).prepare()
    assert asked == [((), ()), (("einops",), ()), ((), ("others",))]


PART = ["bits/R/t", "api/transformer_engine.g*"]


def test_part_of_what_was_measured_is_not_measured_again(printed: dict[str, Any]) -> None:
    measured()
    found = examine(environment(), entries=PART)
    assert printed["made"] == [[]]
    assert list(found.entries) == ["bits/R/t", "api/transformer_engine.g"]
    examine(environment(), entries=PART, rerun=True)
    assert printed["made"] == [[], PART], "asked for"
    assert "api/transformer_engine.f" in measured().entries, "Control: the whole one is still there"


def test_part_is_measured_alone_and_kept_as_a_part(printed: dict[str, Any]) -> None:
    for _ in range(2):
        assert list(examine(environment(), entries=PART).entries) == ["bits/R/t", "api/transformer_engine.g"]
    assert printed["made"] == [PART]
    measured()
    assert printed["made"] == [PART, []], "a part is not the whole"


@pytest.mark.parametrize(
    ("code", "err", "timed_out", "says"),
    [
        (1, "Traceback\nKeyError: 'x'\n", False, "it did not come to its end (exit code 1): KeyError: 'x'"),
        (-11, "Fatal Python error: Segmentation fault\n", False, "it crashed: Segmentation fault"),
        (-15, "", True, "it hung: not done after 600 s"),
    ],
    ids=["raises", "crashes", "hangs"],
)
def test_transformer_engine_that_cannot_be_measured_says_why(
    printed: dict[str, Any], code: int, err: str, *, timed_out: bool, says: str
) -> None:
    found = fails(printed, code, err, timed_out=timed_out)
    assert says in found.problem
    assert "\n" not in found.problem
    assert found.entries == {}
    assert found.environment == {"jax": "0.10.2", "flax": "0.12.8"}


def test_transformer_engine_that_does_not_import_says_why_in_its_words(printed: dict[str, Any]) -> None:
    printed |= {"ended": Ended(1, "", "x\ny", 1.0, timed_out=False), "measured": {"problem": "no libfoo"}}
    assert (measured().problem, measured().entries) == ("no libfoo", {})


@pytest.mark.parametrize(
    ("code", "says"),
    [(1, "its process ends with exit code 1 after its last result"), (-11, "it crashed: Segmentation fault")],
    ids=["exit code", "crash"],
)
def test_process_that_fails_after_its_results_has_a_problem(printed: dict[str, Any], code: int, says: str) -> None:
    printed["ended"] = Ended(code, "", "Fatal Python error: Segmentation fault\n", 1.0, timed_out=False)
    found = measured()
    assert found.problem.startswith(says)
    assert found.entries == {}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGXCPU", "SIGUSR1", "SIGALRM"])
def test_process_that_is_ended_from_outside_is_not_blamed_on_transformer_engine(
    printed: dict[str, Any], tmp_path: Path, name: str
) -> None:
    with pytest.raises(EnvError, match=rf"^the run was ended from outside \({name}\)"):
        fails(printed, -signal.Signals[name], "")
    assert not list(tmp_path.rglob("*.json")), "nothing is kept"


def test_environment_that_fails_is_not_blamed_on_transformer_engine(printed: dict[str, Any]) -> None:
    with pytest.raises(EnvError, match="No module named mnist_fp8"):
        fails(printed, 1, "python: No module named mnist_fp8.measure\n")


def test_source_that_cannot_be_read_is_an_entry(printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_package: Path) -> Names:
        raise ConfigError("x.py cannot be read")

    assert printed["made"] == []
    monkeypatch.setattr(reading, "read_names", unreadable)
    assert measured().entries["api/source"] == Failure("ConfigError", "x.py cannot be read")
    assert measured().names is None


def test_module_that_cannot_be_read_leaves_the_names_of_others(
    printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printed["made"] == []
    unread = dataclasses.replace(NAMES, unread={"transformer_engine.jax.x": "cannot be read"})
    monkeypatch.setattr(reading, "read_names", lambda _package: unread)
    assert measured().entries["api/source"] == Failure("ConfigError", "transformer_engine.jax.x cannot be read")
    assert measured().names == unread


@pytest.mark.parametrize(("keys", "expected"), [(["bits/*"], None), (["api/*"], NAMES), (EVERYTHING, NAMES)])
def test_names_come_with_public_ones(keys: Sequence[str], expected: Names | None, printed: dict[str, Any]) -> None:
    assert examine(environment(), entries=keys).names == expected
    whole = examine(environment(), entries=EVERYTHING)
    assert whole.names == NAMES
    assert examine(environment(), entries=keys).names == expected, "what is cut out of the whole"
    assert len(printed["made"]) == (1 if keys == EVERYTHING else 2)


@pytest.fixture
def read(printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The packages whose names were read."""
    assert printed["made"] == []
    packages: list[Path] = []

    def read_names(package: Path) -> Names:
        packages.append(package)
        return NAMES

    monkeypatch.setattr(reading, "read_names", read_names)
    return packages


def test_names_are_read_once_for_an_installation_and_a_reader(
    printed: dict[str, Any], read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [measured().names, examine(environment(), entries=["api/*"]).names] == [NAMES, NAMES]
    assert read == [Path("/te")]
    monkeypatch.setattr(staging, "measuring_digest", lambda: "n")
    measured()
    assert (len(read), len(printed["made"])) == (1, 2), "code that measures reads no names"
    monkeypatch.setattr(reading, "digest", lambda: "another reader")
    assert measured().names == NAMES
    assert (len(read), len(printed["made"])) == (2, 2), "what was measured does not rest on them"
    measured(environment(digest="other"))
    assert len(read) == 3, "another Transformer Engine"
    measured(rerun=True)
    assert len(read) == 4, "asked for"


@pytest.mark.usefixtures("printed")
def test_names_of_what_is_edited_while_they_are_read_are_not_kept(
    read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured may come from before, so that no run sees the edit."""
    measured()
    monkeypatch.setattr(reading, "digest", lambda: "another reader")
    edited = dataclasses.replace(environment(), identify=lambda: "edited")
    for _ in range(2):
        with pytest.raises(EnvError, match="was edited while it was judged: no result counts"):
            measured(edited)
    assert len(read) == 3


@pytest.mark.parametrize("version", ["platform.python_version", "importlib.metadata.version"])
def test_reader_is_another_with_another_python_or_griffe(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    before = reading.digest.__wrapped__()
    assert reading.digest.__wrapped__() == before
    monkeypatch.setattr(version, lambda *_: "0.0.1")
    assert reading.digest.__wrapped__() != before


def test_reader_is_another_with_other_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(Path(reading.__file__).parent, tmp_path / "names")
    before = reading.digest.__wrapped__()
    monkeypatch.setattr(reading, "__file__", str(tmp_path / "names" / "reading.py"))
    assert reading.digest.__wrapped__() == before
    with (tmp_path / "names" / "bodies.py").open("a") as edited:
        edited.write("# edited\n")
    assert reading.digest.__wrapped__() != before


def test_transformer_engine_that_does_not_import_has_its_names(printed: dict[str, Any]) -> None:
    printed |= {"ended": Ended(1, "", "x\ny", 1.0, timed_out=False), "measured": {"problem": "no libfoo"}}
    assert (measured().names, measured().entries) == (NAMES, {})


# --- claims --------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The claims of each run of the suite; the runs themselves are replaced, and know of a and b."""
    made: list[tuple[str, ...]] = []

    def judge(where: Environment, _stage: Path, claims: Sequence[str], **_options: Any) -> Attempt:
        made.append(tuple(claims))
        results = tuple(ClaimResult(name, (TestResult("t", Outcome.PASSED),)) for name in claims)
        found = SuiteResult(results, problem=printed.get("problem", ""))
        return Attempt(dataclasses.replace(unexamined(where), suite=found), lasting=printed.get("lasting", True))

    monkeypatch.setattr(suite, "judge", judge)
    monkeypatch.setattr(suite, "known_claims", lambda: ("a", "b"))
    return made


def names(record: Record) -> list[str]:
    assert record.suite is not None
    return [claim.name for claim in record.suite.claims]


def test_result_of_the_suite_is_kept(runs: list[Any], printed: dict[str, Any]) -> None:
    first = examine(environment(), claims=["a"])
    assert examine(environment(), claims=["a"]) == first
    assert runs == [("a",)]
    assert printed["made"] == [], "nothing was measured"
    assert (names(first), first.entries, first.environment["jax"]) == (["a"], {}, "0.10.2")


@pytest.mark.parametrize("change", ["claims", "environment", "suite", "variables", "inherited", "rerun", "damaged"])
def test_suite_is_run_again_if_anything_it_rests_on_changed(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    examine(environment(), claims=["a"])
    if change == "suite":
        monkeypatch.setattr(staging, "stage", lambda: Path("/stage-2"))
    if change == "inherited":
        monkeypatch.setenv("NVTE_JAX_CUSTOM_CALLS", "x")
    if change == "damaged":
        (file,) = tmp_path.rglob("*.json")
        file.write_text(file.read_text()[:40])
    own = {**environment().variables, "MNIST_FP8_TE": "host"}
    variables = dataclasses.replace(environment(), variables=own)
    other = {"environment": environment(digest="e"), "variables": variables}
    claims = ["b"] if change == "claims" else ["a"]
    examine(other.get(change, environment()), claims=claims, rerun=change == "rerun")
    assert len(runs) == 2


def test_claim_is_taken_from_a_run_of_all(runs: list[Any]) -> None:
    examine(environment(), claims=["a", "b"])
    assert names(examine(environment(), claims=["b"])) == ["b"]
    assert runs == [("a", "b")]


def test_run_that_was_spared_tests_is_no_whole_run(runs: list[Any]) -> None:
    for passed in (["t"], ["t"], ["u"], []):
        examine(environment(), claims=["a", "b"], passed=passed)
    assert len(runs) == 3, "the second from the cache"
    examine(environment(), claims=["a", "b"], passed=["v"])
    assert len(runs) == 3, "the whole is kept now"


def test_claim_is_not_taken_from_a_run_that_broke_off(runs: list[Any], printed: dict[str, Any]) -> None:
    """What hung may be another claim."""
    printed["problem"] = "it hung"
    examine(environment(), claims=["a", "b"])
    examine(environment(), claims=["b"])
    assert runs == [("a", "b"), ("b",)]


def test_claim_that_is_edited_leaves_the_entries_valid(
    runs: list[Any], printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    examine(environment(), entries=EVERYTHING, claims=["a"])
    monkeypatch.setattr(staging, "stage", lambda: Path("/stage-2"))
    found = examine(environment(), entries=EVERYTHING, claims=["a"])
    assert (len(printed["made"]), len(runs)) == (1, 2)
    assert (found.entries["bits/R/t"], names(found)) == (Text("1"), ["a"])


def test_known_record_is_completed(runs: list[Any], printed: dict[str, Any]) -> None:
    found = examine(environment(), measured(), claims=["a"])
    assert (found.run, next(iter(found.entries)), names(found)) == ("host", "bits/R/t", ["a"])
    found = examine(environment(), examine(environment(), claims=["a"]), entries=EVERYTHING)
    assert (found.run, names(found)) == ("host", ["a"])
    assert (len(printed["made"]), len(runs)) == (1, 1)


def test_result_is_kept_for_the_code_of_the_model_alone(
    runs: list[Any], printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is not of the model runs apart, once for all."""
    for model in (MODEL, MODEL, dataclasses.replace(MODEL, contents="c2")):
        found = examine(prepared(monkeypatch, model), entries=EVERYTHING, claims=["a", "model_b"])
        assert names(found) == ["a", "model_b"]
    assert runs == [("a",), ("model_b",), ("model_b",)]
    own = [f"layers/{MODEL.name}"]
    assert printed["made"] == [[], own, own]


def test_model_that_cannot_be_measured_costs_nothing_else(
    runs: list[Any], printed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = measuring.measure

    def fail(where: Environment, keys: Sequence[str], log: Path) -> Attempt:
        attempt = measure(where, keys, log)
        own = MODEL.name in "".join(keys)
        problem = dataclasses.replace(attempt.record, problem="it died", entries={})
        return Attempt(problem, lasting=False) if own else attempt

    monkeypatch.setattr(measuring, "measure", fail)
    found = examine(prepared(monkeypatch, MODEL), entries=EVERYTHING)
    assert found.entries["bits/R/t"] == Text("1")
    assert found.entries[f"layers/{MODEL.name}/all"] == Failure("Run", "it died")
    assert (found.problem, runs, len(printed["made"])) == ("", [], 2)


def test_part_that_failed_because_of_us_is_not_kept(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise EnvError("the disk is full")

    monkeypatch.setattr(suite, "judge", fail)
    with pytest.raises(EnvError):
        examine(environment(), claims=["a"])
    assert not list(tmp_path.rglob("*.json"))
    assert runs == []


def test_result_that_cannot_be_kept_is_one_line(runs: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mnist_fp8").write_text("a file")
    with pytest.raises(EnvError, match=r"^the result cannot be kept in .*: Not a directory; make room"):
        examine(environment(), claims=["a"])
    assert len(runs) == 1


def test_result_that_would_not_last_is_not_kept(runs: list[Any], printed: dict[str, Any], tmp_path: Path) -> None:
    printed["lasting"] = False
    for _ in range(2):
        examine(environment(), claims=["a"])
    assert len(runs) == 2
    assert not list(tmp_path.rglob("records/*.json"))


def test_nothing_asked_is_nothing_done(runs: list[Any], printed: dict[str, Any]) -> None:
    found = examine(environment())
    assert (found.te, found.arguments, found.entries, found.suite) == ("2.3.0", ("2.3.0",), {}, None)
    assert (runs, printed["made"]) == ([], [])
