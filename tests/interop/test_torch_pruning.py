"""Coupled channels as Torch-Pruning sees them, on the exported networks: the same groups, or a written reason; and the same channels
kept under the same criterion."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

import conftest
import models
import torch_pruning_driver as other
from channel_differences import DIFFERENCES, NO_SAME_CHOICE
from lathe_driver import lathe, needs_lathe

pytestmark = needs_lathe

FAMILIES = ("own", "forms", "torchvision", "timm", "transformers")
SAME_CHOICE = ("lenet", "resnet18", "resnet50", "densenet40", "densenet121", "vgg11_bn", "unet", "wide_resnet", "squeezenet", "googlenet",
               "repvgg", "mobilenet_v2")


def cases():
    """The networks in inference mode, once each."""
    return {case.name: case for name in FAMILIES for case in models.family(name) if not case.train and not case.fixed_batch}


def our_groups(name):
    done = lathe("inspect", conftest.MODELS / f"{name}.pt2", "--groups", "--json")
    assert not done.problem, done.problem
    return {frozenset((cut["tensor"], cut["dim"]) for cut in group["cuts"]) for group in json.loads(done.output)["groups"]}


def their_groups(case):
    try:
        with other.within(other.LONGEST):
            return other.groups_of(case.build(), case.example(0))
    except Exception:
        return None


def short(group):
    return ", ".join(f"{tensor}[{dim}]" for tensor, dim in sorted(group)[:8])


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        conftest.exported()
        metafunc.parametrize("name", SAME_CHOICE if "same" in metafunc.function.__name__ else list(cases()))


def test_couples_what_torch_pruning_couples(name):
    case = cases()[name]
    ours, theirs = our_groups(name), their_groups(case)
    if name in DIFFERENCES:
        assert ours != theirs, f"the groups agree: {name} needs no reason any more"
        return
    assert theirs is not None
    assert ours == theirs, (f"only ours: {[short(group) for group in ours - theirs][:3]}; "
                            f"only theirs: {[short(group) for group in theirs - ours][:3]}")


def test_every_reason_belongs_to_a_network():
    assert set(DIFFERENCES) | set(NO_SAME_CHOICE) <= set(cases())


def test_keeps_the_same_channels(name, tmp_path):
    case = cases()[name]
    model = case.build()
    total = sum(tensor.numel() for tensor in model.parameters())
    smaller = copy.deepcopy(model).eval()
    other.prune_by_first_norm(smaller, case.example(0))
    left = sum(tensor.numel() for tensor in smaller.parameters())
    out = tmp_path / "out.safetensors"
    # Half of each group is the most that may go, and no fewer channels reach the other's number of parameters.
    step = f"prune.channels{{budget={{parameters={(left + 0.5) / total:.12f}}},criterion=l2,scope=layer,most=0.5}}"
    done = lathe("apply", step, conftest.MODELS / f"{name}.pt2", "-o", out)
    assert not done.problem, done.problem
    ours, theirs = load_file(out), smaller.state_dict()
    differing = [key for key, tensor in theirs.items() if key in ours and not torch.equal(ours[key], tensor)]
    if name in NO_SAME_CHOICE:
        assert differing, f"the channels agree: {name} needs no reason any more"
        return
    assert set(dict(smaller.named_parameters())) <= set(ours)
    assert not differing, differing[:5]
