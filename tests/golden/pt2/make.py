#!/usr/bin/env python3
"""Writes the .pt2 files of this folder and, beside each, its inputs and eager's outputs (NAME.safetensors).

Made with torch 2.13.0. The files in the layout of torch 2.5 to 2.7 are written from today's serializer: the five entries are what
torch.export.save of those versions wrote, and torch.export.load of today still reads them."""

import json
import pathlib
import struct
import zipfile

import torch
from torch import nn
from torch._export.serde.serialize import serialize
from torch.export import Dim, export, save

FOLDER = pathlib.Path(__file__).parent


class Net(nn.Module):
    """Training mode: counters, running statistics, a tie, a buffer that is not saved, a constant, keywords, nested results."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc, self.tied = nn.Linear(16, 3), nn.Linear(16, 3)
        self.tied.weight = self.fc.weight
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]), persistent=False)
        self.offset = torch.arange(3.0)

    def forward(self, x, *, k=None, mode=True):
        y = torch.relu_(self.bn(self.conv(x)))
        batch, channels = y.shape[:2]
        y = torch.cat([y.view(batch, channels, -1).mean(2)] * 4, 1)
        left, right = y.chunk(2, 1)
        return {"o": self.fc(y) * self.scale + self.offset, "l": [self.tied(y), left]}, right.shape[0] * 2


class Views(nn.Module):
    """Changes in place that are seen through other names of the same memory."""

    def forward(self, x):
        y = x + 1
        y[:, 0] = 7.0
        rows = y.view(-1)
        y.mul_(2)
        head = y[:, 1:3]
        head.add_(rows[0])
        y.transpose(0, 1)[3].zero_()
        return y, rows, head.sum(1)


class Fixed(nn.Module):
    """A batch size that the exporter fixes in a view, an expand and a state of zeros."""

    def __init__(self):
        super().__init__()
        self.token, self.lstm, self.fc = nn.Parameter(torch.randn(1, 1, 4)), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        y, _ = self.lstm(x)
        return self.fc(y.reshape(x.shape[0] * 4, 4)).view(x.shape[0], 4, 2)


class Coupled(nn.Module):
    """A result that depends on the other samples: the batch must stay fixed."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class NoGrad(nn.Module):
    """A region without gradients, which export puts into a subgraph."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        with torch.no_grad():
            gate = torch.sigmoid(self.fc(x))
        return self.fc(x) * gate


class Branch(nn.Module):
    """Control flow, which is refused."""

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (x,))


def save_file(tensors, path):
    """safetensors: the length of a JSON header, the header, the bytes."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        begin, data = len(data), data + tensor.numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write(name, model, x, old=False, result=True, **options):
    eager = [t for t in torch.utils._pytree.tree_leaves(model(x.clone())) if isinstance(t, torch.Tensor)] if result else []
    if hasattr(model, "bn"):
        model.bn.reset_running_stats()
    program = export(model, (x,), **options)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else []:
            node.meta.pop("stack_trace", None)  # names the folder of whoever made the file
    if old:
        parts = serialize(program)
        with zipfile.ZipFile(FOLDER / f"{name}.pt2", "w") as archive:
            for entry, content in [("serialized_exported_program.json", parts.exported_program), ("serialized_state_dict.pt", parts.state_dict),
                                   ("serialized_constants.pt", parts.constants), ("serialized_example_inputs.pt", b""), ("version", "8.8")]:
                archive.writestr(zipfile.ZipInfo(entry), content)
    else:
        save(program, FOLDER / f"{name}.pt2")
    if result:
        save_file({"in.0": x, **{f"out.{i}": t.detach().contiguous().clone() for i, t in enumerate(eager)}}, FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_grad_enabled(True)
    image = torch.randn(2, 2, 4, 4)
    net = Net().train()
    write("net", net, image, dynamic_shapes={"x": {0: Dim("b", max=64)}, "k": None, "mode": None}, kwargs={"k": None, "mode": True})
    write("old_layout", Net().eval(), image, old=True)
    write("views", Views(), torch.randn(3, 4))
    write("fixed", Fixed().eval(), torch.randn(2, 3, 4))
    write("coupled", Coupled(), torch.randn(2, 3))
    write("no_grad", NoGrad(), torch.randn(2, 3))
    write("branch", Branch(), torch.randn(2, 3), result=False)
