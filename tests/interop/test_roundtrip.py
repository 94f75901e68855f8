"""Every exported network: import, run like eager, print and parse, write back, and Python loads, runs and trains what was written.

The buffers that training mode updates are judged where Python runs what Lathe wrote: the graph that updates them is Lathe's."""

import concurrent.futures
import itertools
import json
import os
import subprocess
import sys

import pytest

import conftest
import judge
from lathe_driver import lathe, needs_lathe

pytestmark = needs_lathe


def facts_of(name):
    return json.loads((conftest.MODELS / f"{name}.json").read_text())


def drive(name, artifacts):
    """Runs Lathe on one network; returns {command: problem}."""
    model, facts = conftest.MODELS / f"{name}.pt2", facts_of(name)
    problems = {}
    for which in range(facts["sizes"]):
        problems[f"run_{which}"] = lathe("run", model, "--inputs", conftest.MODELS / f"{name}.{which}.in.safetensors",
                                         "--outputs", artifacts / f"{name}.{which}.out.safetensors").problem
    problems["convert"] = lathe("convert", model, artifacts / f"{name}.pt2").problem
    problems["text"] = print_twice(model, artifacts / f"{name}.1.lathe.txt", artifacts / f"{name}.2.lathe.txt")
    return problems


def print_twice(model, first, second):
    """Empty where the text form of a model, read and printed again, is the same text."""
    problem = lathe("convert", model, first).problem or lathe("convert", first, second).problem
    if problem:
        return problem
    for number, (a, b) in enumerate(itertools.zip_longest(first.open(), second.open()), 1):
        if a != b:
            return f"line {number}: printed {a!r}, then {b!r}"
    return ""


@pytest.fixture(scope="session")
def results(request, tmp_path_factory):
    """All that is known of the networks that this session tests: {name: {"lathe": problems, "judge": verdicts}}."""
    names = sorted({item.callspec.params["network"] for item in request.session.items
                    if hasattr(item, "callspec") and "network" in item.callspec.params})
    failed = {row.name: row.error for row in conftest.exported() if row.error}
    names = [name for name in names if name not in failed]
    artifacts = tmp_path_factory.mktemp("artifacts")
    workers = os.cpu_count() or 2
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        problems = dict(zip(names, pool.map(lambda name: drive(name, artifacts), names)))
        shares = [names[share::workers] for share in range(workers)]
        verdicts = {}
        for part in pool.map(lambda share: judged(share, artifacts), [share for share in shares if share]):
            verdicts |= part
    return {name: {"lathe": problems[name], "judge": verdicts[name]} for name in names}


def judged(names, artifacts):
    """Judges a share of the networks in a fresh process."""
    result = artifacts / f"{names[0]}.verdicts.json"
    done = subprocess.run([sys.executable, judge.__file__, conftest.MODELS, artifacts, result, *names], capture_output=True, text=True)
    if done.returncode:
        return {name: {"judge": f"the judge died: {done.stderr[-2000:]}"} for name in names}
    return json.loads(result.read_text())


def check(results, network, command, verdict):
    """Fails with Lathe's own error where the command failed, else with the judge's."""
    problem = results[network]["lathe"][command]
    assert not problem, problem
    verdicts = results[network]["judge"]
    wrong = verdicts.get(verdict, verdicts.get("judge", f"the judge did not look at {verdict}"))
    assert not wrong, wrong


def test_python_exports(network):
    """Guards the tests below: an export that fails would leave them without a subject."""
    errors = {row.name: row.error for row in conftest.exported()}
    assert not errors[network], errors[network]


def test_runs_like_eager(results, network):
    check(results, network, "run_0", "outputs_0")


def test_runs_like_eager_at_another_size(results, network):
    if facts_of(network)["sizes"] == 1:
        pytest.skip("has one size")
    check(results, network, "run_1", "outputs_1")


def test_prints_and_parses_back(results, network):
    assert not results[network]["lathe"]["text"], results[network]["lathe"]["text"]


def test_python_loads_and_runs_what_lathe_writes(results, network):
    check(results, network, "convert", "python")


def test_python_trains_and_exports_again_what_lathe_writes(results, network):
    if not facts_of(network)["retrain"]:
        pytest.skip("is not among those that are trained")
    check(results, network, "convert", "retrain")
