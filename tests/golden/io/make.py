"""Writes the files of this folder with Python's torch, and expected.json with what they hold.

Run once with torch 2.13 (and numpy, safetensors):
    python tests/golden/io/make.py
"""

import collections
import json
import os
import pathlib
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = {}


class Net(torch.nn.Module):
    """A module of a class that no reader knows, with a tie and a non-persistent buffer."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.bn = torch.nn.BatchNorm1d(2)
        self.head = torch.nn.Linear(3, 2, bias=False)
        self.head.weight = self.fc.weight
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x):
        return self.bn(self.fc(x))


class Evil:
    """Unpickling it in Python runs a command; in Lathe it is an inert placeholder."""

    def __reduce__(self):
        return (os.system, ("touch lathe-was-fooled",))


def describe(tensor):
    numbers = tensor.detach()
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers.to(torch.complex128))
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "sizes": list(tensor.shape),
        "values": numbers.to(torch.float64).flatten().tolist(),
    }


def expect(name, tensors):
    EXPECTED[name] = {key: describe(value) for key, value in tensors.items()}


def save(name, value, tensors, **options):
    torch.save(value, HERE / name, **options)
    expect(name, tensors)


def tensor_of(dtype):
    values = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.5, 1.5]])
    if dtype == torch.bool:
        return values > 1
    if dtype.is_complex:
        return torch.complex(values, -values).to(dtype)
    return values.to(dtype)


def main():
    torch.manual_seed(1)
    net = Net()
    net.bn(torch.randn(4, 2))
    state = net.state_dict()
    save("zip.pth", state, state)
    save("legacy.pth", state, state, _use_new_zipfile_serialization=False)
    for protocol in (1, 3, 4, 5):
        save(f"protocol{protocol}.pth", state, state, pickle_protocol=protocol)
    save("plain_dict.pth", dict(state), state)
    save("parameters.pth", dict(net.named_parameters()), dict(net.named_parameters()))
    save("whole_module.pth", net, state)
    save("whole_module_legacy.pth", net, state, _use_new_zipfile_serialization=False)

    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
              torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]
    newer = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
    all_types = {str(d).removeprefix("torch."): tensor_of(d) for d in dtypes + newer}
    save("dtypes.pth", all_types, all_types)
    old = {str(d).removeprefix("torch."): tensor_of(d) for d in dtypes}
    save("dtypes_legacy.pth", old, old, _use_new_zipfile_serialization=False)
    scalars = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "one": torch.ones(1, 1)}
    save("shapes.pth", scalars, scalars)

    base = torch.arange(12.0)
    views = {"base": base, "slice": base[2:8:2], "transposed": base.view(3, 4).t(),
             "expanded": base[:1].expand(5), "same": base}
    save("views.pth", views, views)
    save("views_legacy.pth", views, views, _use_new_zipfile_serialization=False)
    save("lone_tensor.pth", base, {"tensor": base})
    save("list.pth", [base, {"w": base + 1}], {"0": base, "1.w": base + 1})

    optimizer = torch.optim.Adam(net.parameters())
    net.fc(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = net.state_dict()
    parallel = collections.OrderedDict(("module." + k, v) for k, v in state.items())
    save("wrapped.pth", {"epoch": 3, "arch": "net", "state_dict": parallel, "best": np.float64(0.5),
                         "optimizer": optimizer.state_dict(), "ema": state}, state)
    compiled = {"_orig_mod." + k: v for k, v in state.items()}
    save("nested.pth", {"model": {"state_dict": compiled}, "sizes": torch.Size([1, 2])}, state)
    save("evil.pth", {"state_dict": state, "hook": Evil()}, state)

    save("quantized.pth", {"w": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)}, {})
    save("sparse.pth", {"w": torch.eye(3).to_sparse()}, {})
    save("no_tensors.pth", {"epoch": 3}, {})
    torch.jit.script(torch.nn.Linear(1, 1)).save(HERE / "script.pth")
    EXPECTED["script.pth"] = {}

    save_file(all_types, HERE / "dtypes.safetensors", metadata={"format": "pt"})
    expect("dtypes.safetensors", all_types)
    save_file(scalars, HERE / "shapes.safetensors")
    expect("shapes.safetensors", scalars)
    with zipfile.ZipFile(HERE / "deflated.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in (("a", b"a" * 1000), ("folder/", b""), ("folder/b", b"bb")):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, contents)
    text = json.dumps(EXPECTED, indent=None, separators=(",", ":"))
    (HERE / "expected.json").write_text(text.replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main()
