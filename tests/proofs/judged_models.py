"""Holds all of ``tests/models`` to the claims on models, in the environment of a release: ``python FILE JSON``.

``proofs.models`` runs this file; it does not import it.
"""

import json
import re
import sys
import warnings
from pathlib import Path

from mnist_fp8 import te
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.model import CLAIMS, RECIPES
from mnist_fp8.model.carrying import carrying_problems
from mnist_fp8.model.run import DELAYED, case_of

sys.path.append(str(Path(__file__).resolve().parents[1]))

from models import BUGS, CORRECT


def main() -> None:
    """Judge them, and write what came of it."""
    te.engine()
    warnings.simplefilter("ignore")
    claims, bugs, absent = dict[str, list[str]](), dict[str, bool](), dict[str, str]()
    for model, factory in CORRECT.items():
        try:
            case_of(factory, DELAYED)
        except ConfigError as error:  # a layer that this release does not have
            absent[model] = str(error)
            continue
        for claim, problems in CLAIMS.items():
            for recipe in RECIPES:
                claims[f"{model}, {claim}, {recipe.name}"] = list(map(str, problems(factory, recipe)))
    for name, (factory, said) in BUGS.items():
        if name.partition(":")[0] not in absent:
            problems_ = carrying_problems(factory, DELAYED)
            bugs[name] = any(re.search(said, problem.what) for problem in problems_)
    Path(sys.argv[1]).write_text(json.dumps({"claims": claims, "bugs": bugs, "absent": absent}))


if __name__ == "__main__":
    main()
