"""The compressed-tensors library decodes what Lathe packs into .safetensors, to the weights that Lathe's .pt2 computes with."""

import json
import pathlib

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import judge
import models.torchvision_models  # noqa: F401  (lets transformers, which the library needs, import beside a CPU torch)
from lathe_driver import lathe, needs_lathe
from models import own_models, randomise
from models.rounded import rounded

pytestmark = needs_lathe


def linear_network():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 10))


def convolutional_network():
    return own_models.ResNet20("B")


SUBJECTS = {"linear": (linear_network, (8, 64)), "convolutional": (convolutional_network, (4, 3, 32, 32))}


@pytest.fixture(scope="session")
def subjects(tmp_path_factory):
    """{name: (network, inputs, path of its export)}."""
    folder, made = tmp_path_factory.mktemp("subjects"), {}
    for name, (make, sizes) in SUBJECTS.items():
        torch.manual_seed(len(name))
        network, inputs = make(), torch.randn(sizes)
        randomise(network)
        network.eval()
        torch.export.save(torch.export.export(network, (inputs,), strict=False), folder / f"{name}.pt2")
        made[name] = network, inputs, folder / f"{name}.pt2"
    return made


def folder_of(written: pathlib.Path) -> pathlib.Path:
    """The folder that the library reads: what Lathe wrote, or one made of a single file that carries its configuration."""
    if written.is_dir():
        return written
    if (written.parent / "config.json").exists():
        return written.parent
    with safe_open(written, framework="pt") as file:
        metadata = file.metadata() or {}
    assert "quantization_config" in metadata, f"{written} says nothing of its encoding: {sorted(metadata)}"
    folder = written.parent / f"{written.stem}.folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": json.loads(metadata["quantization_config"])}))
    save_file(load_file(written), folder / "model.safetensors", metadata)
    return folder


def shapes_of(folder: pathlib.Path) -> dict[str, list[int]]:
    """The library packs matrices; the shapes of convolutions stand in the file's metadata."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return json.loads((file.metadata() or {}).get("lathe.shapes", "{}"))


def decoded(folder: pathlib.Path, out: pathlib.Path) -> dict[str, torch.Tensor]:
    """The dense weights, by the library's own converter."""
    from compressed_tensors.entrypoints.convert import CompressedTensorsDequantizer, convert_checkpoint

    convert_checkpoint(str(folder), str(out), CompressedTensorsDequantizer(str(folder), dtype=torch.float32), max_workers=1, device="cpu")
    shapes = shapes_of(folder)
    return {name: tensor.reshape(shapes[name]) if name in shapes else tensor
            for name, tensor in load_file(out / "model.safetensors").items()}


def outputs_with(network, weights, inputs):
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected and not [name for name in missing if "num_batches" not in name], (missing, unexpected)
    with torch.no_grad():
        return network(inputs)


@pytest.mark.parametrize("subject, options, levels", [
    ("linear", "bits=8", 256),
    ("linear", "bits=4,granularity=tensor", 16),
    ("linear", "bits=4,grid=affine", 16),
    ("linear", "bits=4,granularity=group:16", 16),
    ("linear", "bits=4,grid=affine,granularity=group:16", 16),
    ("linear", "bits=2,grid=affine,granularity=group:8", 4),
    ("linear", "bits=3", 8),
    ("linear", "bits=5,grid=affine,granularity=tensor", 32),
    ("linear", "bits=6,grid=affine", 64),
    ("linear", "bits=7,granularity=group:16", 128),
    ("convolutional", "bits=4", 16),
    ("convolutional", "bits=8,grid=affine", 256),
    ("convolutional", "bits=3,grid=affine", 8),
])
def test_the_library_decodes_the_weights_that_the_program_uses(subjects, tmp_path, subject, options, levels):
    network, inputs, path = subjects[subject]
    pt2, packed = tmp_path / "model.pt2", tmp_path / "model.safetensors"
    outcome = lathe("apply", f"quantize.weights{{{options}}}", path, "-o", pt2, "-o", packed)
    assert not outcome.problem, outcome.problem
    weights = decoded(folder_of(packed), tmp_path / "dense")
    original = dict(network.state_dict())
    changed = [name for name in original if name in weights and weights[name].dim() > 1]
    for name in changed:
        found, wanted = weights[name], original[name]
        assert found.shape == wanted.shape, name
        run = 16 if "group:16" in options else 8 if "group:8" in options else found[0].numel()
        assert max(len(codes.unique()) for codes in found.reshape(-1, run)) <= levels, name
        # half a step of rounding and half a step for a rounded zero point, where a step is at most 2 max|w| / (levels - 1)
        assert judge.distance(found, wanted) <= 2 / (levels - 1), f"{name} is further than a rounding from the original"
    assert any(not weights[name].equal(original[name]) for name in changed), "nothing was quantized: no test of anything"
    torch.manual_seed(0)
    fresh = SUBJECTS[subject][0]().eval()
    with torch.no_grad():
        program = torch.export.load(pt2).module()(inputs)
    gap = judge.distance(outputs_with(fresh, weights, inputs), program)
    assert gap <= judge.TOLERANCE, f"the packed file's weights give outputs {gap:.2g} away from the program's"


@pytest.mark.parametrize("options, layout, tolerance", [
    ("format=fp8", "naive-quantized", 0),
    ("format=fp8,granularity=tensor", "naive-quantized", 0),
    ("format=mxfp4", "mxfp4-pack-quantized", 0),
    ("format=nvfp4", "nvfp4-pack-quantized", 2**-8),  # the library computes its scales in bf16
])
def test_the_library_decodes_floats(tmp_path, options, layout, tolerance):
    torch.manual_seed(1)
    network, inputs = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 48)).eval(), torch.randn(8, 64)
    torch.export.save(torch.export.export(network, (inputs,)), tmp_path / "network.pt2")
    pt2, packed = tmp_path / "model.pt2", tmp_path / "model.safetensors"
    outcome = lathe("apply", f"quantize.weights{{{options}}}", tmp_path / "network.pt2", "-o", pt2, "-o", packed)
    assert not outcome.problem, outcome.problem
    folder = folder_of(packed)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert config["format"] == layout
    weights = decoded(folder, tmp_path / "dense")
    program = torch.export.load(pt2).module()(inputs)
    gap = judge.distance(outputs_with(network, weights, inputs), program)
    assert gap <= max(tolerance, judge.TOLERANCE), f"the packed file's weights give outputs {gap:.2g} away from the program's"


@pytest.mark.parametrize("line", ["quantize.weights{format=nf4}", "quantize.hqq{group_size=16}"])
def test_programs_in_formats_the_library_lacks_run_in_python(tmp_path, line):
    torch.manual_seed(2)
    network, inputs = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 48)).eval(), torch.randn(8, 64)
    torch.export.save(torch.export.export(network, (inputs,)), tmp_path / "network.pt2")
    pt2, dense = tmp_path / "model.pt2", tmp_path / "model.safetensors"
    outcome = lathe("apply", line, tmp_path / "network.pt2", "-o", pt2, "-o", dense)
    assert not outcome.problem, outcome.problem
    assert "written without compression" in outcome.messages
    program = torch.export.load(pt2).module()(inputs)
    assert 0 < judge.distance(program, network(inputs)) < 0.3
    assert judge.distance(outputs_with(network, load_file(dense), inputs), program) <= judge.TOLERANCE


def test_pruned_weights_stay_zero_in_the_packed_file(subjects, tmp_path):
    network, inputs, path = subjects["linear"]
    packed = tmp_path / "model.safetensors"
    outcome = lathe("apply", "prune.magnitude{sparsity=0.5,scope=tensor},quantize.weights{bits=4}", path, "-o", packed)
    assert not outcome.problem, outcome.problem
    weights = decoded(folder_of(packed), tmp_path / "dense")
    for name, wanted in network.state_dict().items():
        if wanted.dim() > 1:
            pruned = wanted.abs() <= wanted.abs().flatten().kthvalue(wanted.numel() // 2).values
            assert not weights[name][pruned].any(), name


@pytest.mark.parametrize("subject, codes", [("linear", (0, 255)), ("linear", (-128, 127)), ("convolutional", (0, 255))])
def test_the_library_reads_integers_of_weights_and_inputs(tmp_path, subject, codes):
    make, sizes = SUBJECTS[subject]
    torch.manual_seed(7)
    inputs = torch.randn(sizes)
    network = make()
    randomise(network)
    rounded(network, inputs, *codes)
    torch.export.save(torch.export.export(network, (inputs,), strict=False), tmp_path / "in.pt2")
    pt2, packed = tmp_path / "model.pt2", tmp_path / "model.safetensors"
    outcome = lathe("apply", "quantize.weights{bits=8}", tmp_path / "in.pt2", "-o", pt2, "-o", packed)
    assert not outcome.problem, outcome.problem

    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    group, = QuantizationConfig.model_validate(config).config_groups.values()
    assert config["format"] == group.format == "int-quantized"
    assert group.input_activations.num_bits == 8 and not group.input_activations.dynamic
    assert group.input_activations.strategy == "tensor" and group.weights.strategy == "channel"

    # What the two programs compute with: weights, and inputs as the scale and the zero point of the file round them.
    file, shapes = load_file(packed), shapes_of(tmp_path)
    layers = {name.removesuffix(".input_scale") for name in file if name.endswith(".input_scale")}
    assert len(layers) == sum(isinstance(module, (nn.Linear, nn.Conv2d)) for module in network.modules())
    weights = {name: tensor for name, tensor in file.items() if not name.rpartition(".")[0] in layers or name.endswith(".bias")}
    for layer in layers:
        assert file[f"{layer}.weight"].dtype == torch.int8
        parts = {part: file[f"{layer}.{part}"] for part in ("weight", "weight_scale")}
        dense = BaseCompressor.get_value_from_registry(group.format).decompress(parts, group)["weight"]
        weights[f"{layer}.weight"] = dense.reshape(shapes.get(f"{layer}.weight", dense.shape))
    for name, module in network.named_modules():
        if f"{name}.layer" not in layers:
            continue
        scale, zero = file[f"{name}.layer.input_scale"], file.get(f"{name}.layer.input_zero_point", torch.zeros(1))
        assert scale.item() == pytest.approx(module.scale, rel=1e-6)
        assert int(zero) == module.zero_point - codes[0] - 128
    fresh = rounded(make(), inputs, *codes)
    fresh.load_state_dict(network.state_dict())
    for to, source in zip(fresh.modules(), network.modules()):
        if hasattr(to, "zero_point"):
            to.scale, to.zero_point = source.scale, source.zero_point
    with torch.no_grad():
        program = torch.export.load(pt2).module()(inputs)
    assert judge.distance(outputs_with(fresh, weights, inputs), program) <= judge.TOLERANCE
    out = tmp_path / "out.safetensors"
    save_file({"in.0": inputs}, tmp_path / "x.safetensors")
    assert not lathe("run", packed, "--inputs", tmp_path / "x.safetensors", "--outputs", out).problem
    assert judge.distance(load_file(out)["out.0"], program) <= judge.TOLERANCE
