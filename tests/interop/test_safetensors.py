"""The safetensors package reads what Lathe writes, and Lathe what it writes: every dtype, ties, shards, metadata."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lathe_driver import lathe, needs_lathe

pytestmark = needs_lathe

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]


def every_dtype():
    torch.manual_seed(0)
    bits = torch.randint(0, 2, (3, 4))
    tensors = {f"t.{str(dtype).removeprefix('torch.')}": (torch.randn(3, 4) * 3 if dtype.is_floating_point else bits).to(dtype) for dtype in DTYPES}
    return tensors | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}


def same_bytes(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert found[name].contiguous().view(-1).view(torch.uint8).equal(tensor.contiguous().view(-1).view(torch.uint8)), name


def test_every_dtype_survives_lathe(tmp_path):
    save_file(every_dtype(), tmp_path / "in.safetensors")
    assert not lathe("convert", tmp_path / "in.safetensors", tmp_path / "out.safetensors").problem
    same_bytes(load_file(tmp_path / "out.safetensors"), every_dtype())


def test_the_file_opens_without_a_copy_and_has_string_metadata(tmp_path):
    save_file(every_dtype(), tmp_path / "in.safetensors", {"format": "pt", "author": "somebody"})
    assert not lathe("convert", tmp_path / "in.safetensors", tmp_path / "out.safetensors").problem
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert all(isinstance(value, str) for value in (file.metadata() or {}).values())
        assert set(file.keys()) == set(every_dtype())


def test_shards_with_an_index_become_one_file(tmp_path):
    tensors = every_dtype()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, tmp_path / shard)
    index = {"metadata": {"total_size": 0}, "weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not lathe("convert", tmp_path / "model.safetensors.index.json", tmp_path / "out.safetensors").problem
    same_bytes(load_file(tmp_path / "out.safetensors"), tensors)


@pytest.mark.parametrize("extension", ["pth", "pt"])
def test_a_state_dict_of_torch_becomes_safetensors(tmp_path, extension):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(network.state_dict(), tmp_path / f"in.{extension}")
    assert not lathe("convert", tmp_path / f"in.{extension}", tmp_path / "out.safetensors").problem
    same_bytes(load_file(tmp_path / "out.safetensors"), dict(network.state_dict()))


def test_tied_tensors_keep_their_names(tmp_path):
    shared = torch.randn(4, 3)
    torch.save({"embedding.weight": shared, "head.weight": shared}, tmp_path / "in.pth")
    assert not lathe("convert", tmp_path / "in.pth", tmp_path / "out.safetensors").problem
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        stored, metadata = set(file.keys()), file.metadata() or {}
    # The format has no aliases: one name is stored, the other is noted in the metadata.
    ties = json.loads(metadata["lathe.ties"])
    assert {"embedding.weight", "head.weight"} == stored | set(ties) and set(ties.values()) == stored
    assert load_file(tmp_path / "out.safetensors")[min(stored)].equal(shared)
