"""What Lathe can't run is refused by name when the file is read: control flow, and operators that no library of this process has."""

import subprocess
import sys

import pytest

from lathe_driver import lathe, needs_lathe

pytestmark = needs_lathe

EXPORT = """
import sys, torch
from torch import nn

class Branches(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))

class Loops(nn.Module):
    def forward(self, x):
        return torch.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x))

@torch.library.custom_op("acme::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@twice.register_fake
def _(x):
    return torch.empty_like(x)

class Custom(nn.Module):
    def forward(self, x):
        return torch.ops.acme.twice(x) + 1

for name, module in (("cond", Branches()), ("while_loop", Loops()), ("custom", Custom())):
    torch.export.save(torch.export.export(module, (torch.randn(3),), strict=False), f"{sys.argv[1]}/{name}.pt2")
"""


@pytest.fixture(scope="session")
def refused_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    subprocess.run([sys.executable, "-W", "ignore", "-c", EXPORT, str(folder)], check=True, capture_output=True, timeout=300)
    return folder


@pytest.mark.parametrize("model, operator", [("cond", "cond"), ("while_loop", "while_loop"), ("custom", "acme::twice")])
def test_an_operator_that_cannot_run_is_refused_by_name(refused_models, tmp_path, model, operator):
    outcome = lathe("convert", refused_models / f"{model}.pt2", tmp_path / "out.pt2")
    assert outcome.code == 1, f"exit code {outcome.code}: {outcome.messages}"
    assert operator in outcome.messages.replace("acme.twice", "acme::twice")
    assert not (tmp_path / "out.pt2").exists()
