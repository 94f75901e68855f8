#!/usr/bin/env python3
"""Judges what Lathe computed and wrote for exported networks; one process judges many, because importing torch takes seconds.

  judge.py MODELS ARTIFACTS RESULT.json NAME...

MODELS is export_models.py's folder. ARTIFACTS holds what Lathe made of it: NAME.<which>.out.safetensors
and NAME.pt2. The result maps each name to {check: "" or what is wrong}.
"""

import json
import logging
import pathlib
import sys
import traceback
import warnings

import torch
from safetensors.torch import load_file

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """max |found - wanted| / max |wanted|, with integers and booleans equal or infinitely far."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return 0.0 if torch.equal(found, wanted) else float("inf")
    if wanted.numel() == 0:
        return 0.0
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    found, wanted = found.to(wide), wanted.to(wide)
    scale = wanted.abs().max().clamp(min=1e-30)
    gap = ((found - wanted).abs().max() / scale).item()
    return gap if gap == gap else float("inf")


def compare(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float = TOLERANCE) -> str:
    """Empty, or what differs."""
    if found.keys() != wanted.keys():
        return f"missing {sorted(wanted.keys() - found.keys())}, unexpected {sorted(found.keys() - wanted.keys())}"
    wrong = []
    for name, tensor in wanted.items():
        gap = distance(found[name], tensor)
        if not gap <= tolerance:
            wrong.append(f"{name}: found {describe(found[name])}, wanted {describe(tensor)}, relative distance {gap:.2g} > {tolerance:g}")
    return "; ".join(wrong[:5])


def describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def leaves(result) -> list[torch.Tensor]:
    return [torch.as_tensor(leaf) for leaf in torch.utils._pytree.tree_leaves(result) if leaf is not None]


def numbered(prefix: str, tensors: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{i}": tensor.detach().contiguous() for i, tensor in enumerate(tensors)}


def inputs_of(folder: pathlib.Path, name: str, which: int) -> list[torch.Tensor]:
    tensors = load_file(folder / f"{name}.{which}.in.safetensors")
    return [tensors[f"in.{i}"] for i in range(len(tensors))]


class Judge:
    def __init__(self, models: pathlib.Path, artifacts: pathlib.Path, name: str):
        self.models, self.artifacts, self.name = models, artifacts, name
        self.facts = json.loads((models / f"{name}.json").read_text())

    def outputs(self, which: int) -> str:
        """Lathe's outputs against eager's."""
        return compare(load_file(self.artifacts / f"{self.name}.{which}.out.safetensors"),
                       load_file(self.models / f"{self.name}.{which}.out.safetensors"))

    def python_outputs(self) -> str:
        """Outputs, names and buffer updates of the rewritten program in Python."""
        original, program = self.load(self.models), self.load(self.artifacts)
        wrong = compare(dict(program.state_dict), dict(original.state_dict))
        if wrong:
            return f"state_dict: {wrong}"
        sizes = 1 if self.facts["fixed_batch"] else self.facts["sizes"]
        for which in range(sizes):
            module = self.load(self.artifacts).module() if self.facts["train"] else program.module()
            with torch.no_grad():
                found = numbered("out", leaves(module(*inputs_of(self.models, self.name, which))))
            wrong = compare(found, load_file(self.models / f"{self.name}.{which}.out.safetensors"))
            if wrong:
                return f"size {which}: {wrong}"
            if self.facts["train"] and which == 0:
                wanted = load_file(self.models / f"{self.name}.0.state.safetensors")
                buffers = dict(module.named_buffers())
                wrong = compare({name: buffers[name] for name in wanted if name in buffers}, wanted)
                if wrong:
                    return f"buffers after the forward: {wrong}"
        return ""

    def retrain(self) -> str:
        """Gradients of the rewritten program equal the original's, a step lowers the loss, and it exports again."""
        wanted, _, _ = self.backward(self.load(self.models))
        found, module, loss = self.backward(self.load(self.artifacts))
        if not wanted:
            return "the original has no gradients: the test is void"
        wrong = compare(found, wanted, GRADIENT_TOLERANCE)
        if wrong:
            return f"gradients: {wrong}"
        norm = sum(gradient.double().pow(2).sum() for gradient in found.values()).sqrt().item()
        torch.optim.SGD(module.parameters(), lr=1e-3 / max(norm, 1e-12)).step()
        after = self.loss(module)
        if not after < loss:
            return f"a gradient step took the loss from {loss.item()} to {after.item()}"
        torch.export.export(module, tuple(inputs_of(self.models, self.name, 0)), strict=False)
        return ""

    def loss(self, module) -> torch.Tensor:
        """A fixed random projection of all floating-point outputs, in double so that a small step shows."""
        generator = torch.Generator().manual_seed(0)
        outputs = [out for out in leaves(module(*inputs_of(self.models, self.name, 0))) if out.is_floating_point()]
        return sum((out.double() * torch.randn(out.shape, generator=generator, dtype=torch.float64)).sum() for out in outputs)

    def backward(self, program):
        module = program.module()
        loss = self.loss(module)
        loss.backward()
        # A tied parameter is loaded as several on one storage; which of them the program uses is nobody's promise.
        names, gradients = {}, {}
        for name, parameter in sorted(module.named_parameters(remove_duplicate=False)):
            name = names.setdefault(parameter.data_ptr(), name)
            if parameter.grad is not None:
                gradients[name] = gradients.get(name, 0) + parameter.grad
        return gradients, module, loss.detach()

    def load(self, folder: pathlib.Path):
        return torch.export.load(folder / f"{self.name}.pt2")

    def verdicts(self) -> dict[str, str]:
        checks = {f"outputs_{which}": lambda which=which: self.outputs(which) for which in range(self.facts["sizes"])}
        checks["python"] = self.python_outputs
        if self.facts["retrain"]:
            checks["retrain"] = self.retrain
        verdicts = {}
        for check, judge in checks.items():
            try:
                verdicts[check] = judge()
            except Exception:
                verdicts[check] = traceback.format_exc(limit=-3)
        return verdicts


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    models, artifacts, result = (pathlib.Path(argument) for argument in sys.argv[1:4])
    verdicts = {name: Judge(models, artifacts, name).verdicts() for name in sys.argv[4:]}
    result.write_text(json.dumps(verdicts, indent=1))


if __name__ == "__main__":
    main()
