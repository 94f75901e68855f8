"""Every exported network loses channels: Python loads what is left, runs it as Lathe does, trains it a step and exports it again."""

import json
import logging
import warnings

import pytest

import conftest
from lathe_driver import lathe, needs_lathe

pytestmark = needs_lathe

# Networks without a weight, or without a channel that only weights see.
NOTHING_TO_PRUNE = {"grouped_shuffle", "grouped_shuffle_fixed_batch", "in_place", "norms_1d"}


@pytest.fixture(scope="session")
def torch():
    import torch

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    return torch


def parameters(program):
    """Elements of all parameters; tied ones count once."""
    return sum({parameter.data_ptr(): parameter.numel() for parameter in program.parameters()}.values())


def test_python_runs_trains_and_exports_what_is_left(network, torch, tmp_path):
    import judge

    facts = json.loads((conftest.MODELS / f"{network}.json").read_text())
    if facts["train"]:
        pytest.skip("in training mode outputs depend on the batch's statistics")
    small = tmp_path / f"{network}.pt2"
    outcome = lathe("apply", "prune.channels{budget={parameters=0.85},scope=layer}", conftest.MODELS / f"{network}.pt2", "-o", small,
                    "--latency-seconds", "0.01")
    if network in NOTHING_TO_PRUNE or network.startswith("operators_"):
        assert outcome.code == 2 and not small.exists(), outcome.messages
        return
    assert not outcome.problem, outcome.problem
    before, after = (parameters(torch.export.load(path)) for path in (conftest.MODELS / f"{network}.pt2", small))
    assert after <= 0.85 * before, (before, after)
    for which in range(1 if facts["fixed_batch"] else facts["sizes"]):
        outputs = tmp_path / "out.safetensors"
        outcome = lathe("run", small, "--inputs", conftest.MODELS / f"{network}.{which}.in.safetensors", "--outputs", outputs)
        assert not outcome.problem, outcome.problem
        with torch.no_grad():
            found = judge.leaves(torch.export.load(small).module()(*judge.inputs_of(conftest.MODELS, network, which)))
        wrong = judge.compare(judge.numbered("out", found), judge.load_file(outputs))
        assert not wrong, f"size {which}: {wrong}"
    if not facts["retrain"]:
        return
    checker = judge.Judge(conftest.MODELS, tmp_path, network)
    gradients, module, loss = checker.backward(checker.load(tmp_path))
    norm = sum(gradient.double().pow(2).sum() for gradient in gradients.values()).sqrt().item()
    torch.optim.SGD(module.parameters(), lr=1e-3 / max(norm, 1e-12)).step()
    assert checker.loss(module) < loss
    torch.export.export(module, tuple(judge.inputs_of(conftest.MODELS, network, 0)), strict=False)
