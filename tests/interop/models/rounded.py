"""Networks whose layers round their inputs to 8 bits, as quantize.static leaves them."""

import torch
from torch import nn

# torch.export traces with tensors without contents, for which torch lacks this kernel.
_META = torch.library.Library("aten", "IMPL", "Meta")
_META.impl("fake_quantize_per_tensor_affine_cachemask", lambda x, *_: (torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)))


class Rounded(nn.Module):
    """A layer that first measures the range of its inputs and, once frozen, rounds them."""

    def __init__(self, layer: nn.Module, low: int, high: int):
        super().__init__()
        self.layer, self.codes = layer, (low, high)
        self.least, self.most, self.scale, self.zero_point, self.frozen = 0.0, 0.0, 1.0, 0, False

    def forward(self, x):
        if self.frozen:
            x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, *self.codes)
        else:
            self.least, self.most = min(self.least, x.min().item()), max(self.most, x.max().item())
        return self.layer(x)

    def freeze(self):
        low, high = self.codes
        self.scale = (self.most - self.least) / (high - low)
        self.zero_point = round(low - self.least / self.scale)
        self.frozen = True


def rounded(network: nn.Module, inputs: torch.Tensor, low: int = 0, high: int = 255) -> nn.Module:
    """The network in eval mode, with every convolution and linear layer rounding its input by the range that it has on `inputs`."""
    network.eval()
    wrap(network, low, high)
    with torch.no_grad():
        network(inputs)
    for module in network.modules():
        if isinstance(module, Rounded):
            module.freeze()
    return network


def wrap(module: nn.Module, low: int, high: int) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, (nn.Conv2d, nn.Linear)):
            setattr(module, name, Rounded(child, low, high))
        else:
            wrap(child, low, high)
