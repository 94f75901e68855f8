"""The judge itself: it accepts what is equal and finds what is not, or every other test here proves nothing."""

import torch

import judge
from models import Case, features, randomise


def test_equal_tensors_are_at_distance_zero():
    assert judge.distance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == 0


def test_the_distance_is_relative_to_the_largest_wanted_value():
    assert abs(judge.distance(torch.tensor([100.0, 1.5]), torch.tensor([100.0, 1.0])) - 0.005) < 1e-9


def test_nan_another_type_another_shape_and_a_wrong_integer_are_infinitely_far():
    wanted = torch.tensor([1.0, 2.0])
    for found in (torch.tensor([1.0, float("nan")]), wanted.double(), wanted[:1]):
        assert judge.distance(found, wanted) == float("inf")
    assert judge.distance(torch.tensor([1, 3]), torch.tensor([1, 2])) == float("inf")


def test_a_missing_tensor_and_a_wrong_one_are_named():
    a, b = torch.zeros(2), torch.ones(2)
    assert "missing ['b']" in judge.compare({"a": a}, {"a": a, "b": b})
    assert judge.compare({"a": a}, {"a": b}).startswith("a: ")


def test_no_parameter_is_left_constant_or_next_to_zero():
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.LayerNorm(8))
    randomise(network)
    for name, parameter in network.named_parameters():
        assert parameter.std() > 1e-2, name
    assert network[1].running_mean.std() > 1e-2 and network[1].running_var.min() > 0


def test_a_case_builds_the_same_network_and_inputs_each_time():
    case = Case("twice", lambda: torch.nn.Linear(4, 2), features(4), (("batch",),))
    assert case.build().weight.equal(case.build().weight)
    assert case.example(0)[0].equal(case.example(0)[0]) and case.example(1)[0].shape != case.example(0)[0].shape
