"""What Lathe can't run is refused by name: control flow when the file is read, an operator that no library of this process has when
the model runs (until then it is kept, so that the model can be inspected, edited and written)."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

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


@pytest.mark.parametrize("model", ["cond", "while_loop"])
def test_control_flow_is_refused_by_name(refused_models, tmp_path, model):
    outcome = lathe("convert", refused_models / f"{model}.pt2", tmp_path / "out.pt2")
    assert outcome.code == 1, f"exit code {outcome.code}: {outcome.messages}"
    assert model in outcome.messages
    assert not (tmp_path / "out.pt2").exists()


def test_an_unknown_operator_is_kept_and_refused_by_name_when_it_runs(refused_models, tmp_path):
    save_file({"in.0": torch.randn(3)}, tmp_path / "in.safetensors")
    model = refused_models / "custom.pt2"
    assert lathe("convert", model, tmp_path / "kept.pt2").code == 0
    outcome = lathe("run", model, "--inputs", tmp_path / "in.safetensors", "--outputs", tmp_path / "out.safetensors")
    assert outcome.code == 1, f"exit code {outcome.code}: {outcome.messages}"
    assert "acme::twice" in outcome.messages
    assert not (tmp_path / "out.safetensors").exists()
