"""The networks that the interop tests export: what they are, their inputs, and how their weights are drawn.

Nothing is downloaded. A case is a name, a constructor and a maker of inputs; weights come from the case's own seed, and every
parameter that an initialiser leaves constant (ones, zeros, a layer scale of 1e-6) is drawn anew, so that no branch of a network is
switched off and no wrong operator goes unseen.
"""

import dataclasses
import importlib
import inspect
import pathlib
import zlib
from collections.abc import Callable

import torch
from torch import nn

FAMILIES = ("own", "forms", "operators", "torchvision", "timm", "transformers")


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[torch.Tensor, ...]]
    """Inputs for a batch size and a length (the length is ignored by networks without a sequence)."""
    axes: tuple[tuple[str, ...], ...]
    """For each input, the names of its leading dimensions that may vary: "batch", "length", or "" for a fixed one."""
    train: bool = False
    fixed_batch: bool = False
    """Exported without symbolic sizes: Lathe has to generalise the batch size."""
    sizes: tuple[tuple[int, int], ...] = ((2, 8), (3, 13))
    """The (batch, length) of the export and of a second run."""
    retrain: bool = False
    """Also judged by a training step on the file that Lathe writes."""

    @property
    def dynamic(self) -> bool:
        return any(any(names) for names in self.axes)

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    def build(self) -> nn.Module:
        torch.manual_seed(self.seed)
        model = self.make()
        randomise(model)
        model.train(self.train)
        return model

    def example(self, which: int) -> tuple[torch.Tensor, ...]:
        """The inputs of the first (0) or second (1) size."""
        torch.manual_seed(self.seed + 1 + which)
        return self.inputs(*self.sizes[which])

    def dynamic_shapes(self, model: nn.Module):
        """What torch.export.export wants as `dynamic_shapes`."""
        if not self.dynamic or self.fixed_batch:
            return None
        shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis, name in enumerate(names) if name} for names in self.axes)
        kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
        return (shapes,) if inspect.Parameter.VAR_POSITIONAL in kinds else shapes


def randomise(model: nn.Module) -> None:
    """Draws anew what an initialiser left constant or next to zero, and the statistics of normalisation layers."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            low, high = parameter.min().item(), parameter.max().item()
            if low == high and abs(low) > 0.1:
                parameter.copy_(low * torch.empty_like(parameter).uniform_(0.5, 1.5))
            elif max(abs(low), abs(high)) < 1e-2:
                parameter.normal_(0, 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)


def image(size: int, channels: int = 3):
    """Inputs of a network that takes one batch of images."""
    return lambda batch, length: (torch.randn(batch, channels, size, size),)


def features(*sizes: int):
    """Inputs of a network that takes one batch of tensors of these sizes."""
    return lambda batch, length: (torch.randn(batch, *sizes),)


def tokens(vocabulary: int):
    """Inputs of a network that takes one batch of token ids."""
    return lambda batch, length: (torch.randint(0, vocabulary, (batch, length)),)


BATCH = (("batch",),)
SEQUENCE = (("batch", "length"),)
LARGER = ((4, 8), (6, 13))
"""Sizes for training mode: batch norm over a pair of numbers is ill-conditioned."""


def family(name: str) -> list[Case]:
    cases = importlib.import_module(f"models.{name}_models").CASES
    assert len({case.name for case in cases}) == len(cases), f"two cases of {name} have one name"
    return cases


def source_of(name: str) -> bytes:
    """What a cached export of a family depends on."""
    here = pathlib.Path(__file__).parent
    return (here / "__init__.py").read_bytes() + (here / f"{name}_models.py").read_bytes()
