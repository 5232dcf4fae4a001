"""A small study and the results of two of its cells."""

from pathlib import Path

import pytest
import yaml

import qaudio
from qaudio.study.grid import Study
from tests.support.entries import results_of, tiny
from tests.support.predictions import answered


@pytest.fixture
def study(tmp_path) -> Study:
    cells = {
        "whole": {"what": "the net", "recipe": "whole.yaml"},
        "small": {"what": "pruned", "recipe": "small.yaml", "set": {"model.ratio": None,
                  "model.target_macs": {"made": 0.25, "other": 0.5},
                  "model.source": "whole.{benchmark}"},
                  "against": ["whole", "later"]},
        "later": {"what": "another", "recipe": "small.yaml", "set": {"model.lr": 0.1},
                  "against": ["whole"]},
    }  # fmt: skip
    recipes = tmp_path / "recipes"
    (recipes / "made").mkdir(parents=True)
    (recipes / "made" / "whole.yaml").write_text("writer: {entry: whole.made}")
    tables = [{"title": "All", "cells": list(cells)}]
    (recipes / "study.yaml").write_text(
        yaml.safe_dump(
            {
                "benchmarks": ["made"],
                "seeds": [0],
                "reference": "whole",
                "cells": cells,
                "tables": tables,
            },
            sort_keys=False,
        )
    )
    return Study(recipes / "study.yaml")


@pytest.fixture
def zoo(tmp_path) -> Path:
    for name, right in (("whole.made", 5), ("study/made/small", 8)):
        found = answered(right)
        results = results_of(found) | {"entry": name}
        qaudio.save(
            tiny(), tmp_path / "zoo" / name, results=results, predictions=found,
            recipe="a recipe", weights="study" not in name,
        )  # fmt: skip
    return tmp_path / "zoo"
