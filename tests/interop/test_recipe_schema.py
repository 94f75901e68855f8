"""A JSON schema validator reads recipes as Lathe does: those of the repository are valid, slips in any section are not."""

import copy
import json
import pathlib

import jsonschema
import pytest

from lathe_driver import lathe, needs_lathe

pytestmark = needs_lathe

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.json"))
RECIPE = {
    "lathe": 1,
    "variables": {"rate": 0.5, "images": 512},
    "data": {"test": {"cifar10": {"split": "test", "normalize": "imagenet"}},
             "calibration": {"take": {"from": "train", "count": "${images}"}},
             "train": {"images": {"path": "some/folder", "size": 64}}},
    "steps": [{"pass": "prune.magnitude", "sparsity": "${rate}"}],
    "evaluate": {"data": "test", "metrics": ["top1", "loss"]},
}


@pytest.fixture(scope="module")
def validator():
    ran = lathe("schema")
    assert not ran.problem, ran.problem
    schema = json.loads(ran.output)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_valid(validator, path):
    assert not [error.message for error in validator.iter_errors(json.loads(path.read_text()))]


@pytest.mark.parametrize("path, value", [
    (["data", "test", "cifar10", "split"], "tset"),
    (["data", "test", "cifar10", "splitt"], "test"),
    (["data", "test"], {"cifar11": {"split": "test"}}),
    (["data", "calibration", "take"], {"from": "train"}),
    (["data", "train", "images", "size"], 0),
    (["evaluate", "metrics"], ["top2"]),
    (["evaluate", "on"], "test"),
    (["steps", 0, "sparsity"], 2),
    (["steps", 0, "pass"], "prune.magnitud"),
], ids=str)
def test_slips_are_found(validator, path, value):
    assert validator.is_valid(RECIPE)
    wrong = copy.deepcopy(RECIPE)
    place = wrong
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not validator.is_valid(wrong)
