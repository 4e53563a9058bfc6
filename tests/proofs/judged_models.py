"""Holds all of ``tests/models`` to the claims on models, in the environment of a release: ``python FILE JSON SEEDS``.

``proofs.models`` runs this file; it does not import it.
"""

import functools
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.model import CLAIMS, RECIPES, Factory, drawing
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.options import options_problems
from mnist_fp8.model.run import DELAYED, case_of

sys.path.append(str(Path(__file__).resolve().parents[1]))

from models import BUGS, CORRECT, IGNORING


def main() -> None:
    """Judge them, the correct ones with each seed, and write what came of it."""
    te.engine()
    warnings.simplefilter("ignore")
    claims, bugs, absent = dict[str, list[str]](), dict[str, bool](), dict[str, str]()
    for seed in range(int(sys.argv[2])):
        with mock.patch.object(drawing, "by_name", functools.partial(_drawn, drawing.by_name, seed)):
            for model, factory in CORRECT.items():
                if (reason := _why_absent(factory)) is not None:
                    absent[model] = reason
                    continue
                for name, problems in _judged(functools.partial(factory, seed=seed)):
                    claims[f"{model}, {name}, seed {seed}"] = problems
    for group, claim in ((BUGS, carrying_problems), (IGNORING, options_problems)):
        for name, (factory, said) in group.items():
            if name.partition(":")[0] not in absent:
                bugs[name] = any(re.search(said, problem.what) for problem in claim(factory, DELAYED))
    Path(sys.argv[1]).write_text(json.dumps({"claims": claims, "bugs": bugs, "absent": absent}))


def _drawn(by_name: Callable[[str], np.random.Generator], seed: int, name: str) -> np.random.Generator:
    """What draws other numbers for each seed; those of the claims themselves for the first."""
    return by_name(f"{name} {seed}" if seed else name)


def _why_absent(factory: Factory) -> str | None:
    """Why a release does not have a model: it lacks a layer; ``None`` if it has it."""
    try:
        case_of(factory, DELAYED)
    except ConfigError as error:
        return str(error)
    return None


def _judged(factory: Factory) -> Iterator[tuple[str, list[str]]]:
    """Each claim in each recipe, and what does not hold."""
    for claim, problems in CLAIMS.items():
        for recipe in RECIPES:
            yield f"{claim}, {recipe.name}", list(map(str, problems(factory, recipe)))


if __name__ == "__main__":
    main()
