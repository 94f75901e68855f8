"""ONNX Runtime runs what Lathe writes: like Lathe itself, at several sizes, and quantized layers by its integer kernels."""

import json
import pathlib

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn import functional as F

import conftest
import judge
from lathe_driver import lathe, needs_lathe
from models import own_models, randomise
from models.rounded import rounded

pytestmark = needs_lathe

TOLERANCE = 1e-4

# What ONNX has no operator for, with one of those that are named.
REFUSED = {
    "operators_bits": "aten::gcd",
    "operators_fft": "aten::fft_rfft2",
    "operators_indexing": "aten::cdist",
    "operators_linalg": "aten::linalg_cholesky",
    "operators_products": "aten::bilinear",
    "operators_sorting": "aten::median.dim",
    "operators_spatial": "aten::im2col",
    "operators_special": "aten::special_bessel_j0",
}


def session(path: pathlib.Path, optimized: pathlib.Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # sums in floats: its default rounds inputs to 8 bits
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs_of(path: pathlib.Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    runner = session(path)
    names = [value.name for value in runner.get_inputs()]
    return runner.run(None, dict(zip(names, inputs, strict=True)))


def numbered(tensors: dict[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    return [tensors[f"{prefix}.{i}"] for i in range(len(tensors))]


def differences(found: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    """Empty, or what differs."""
    if len(found) != len(wanted):
        return f"{len(found)} outputs, {len(wanted)} wanted"
    for i, (a, b) in enumerate(zip(found, wanted)):
        gap = judge.distance(torch.from_numpy(np.array(a)), torch.from_numpy(np.array(b)))
        if not gap <= TOLERANCE:
            return f"output {i}: {a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}, relative distance {gap:.2g}"
        if a.ndim == 2 and a.dtype == np.float32 and not np.array_equal(a.argmax(-1), b.argmax(-1)):
            return f"output {i}: other classes"
    return ""


def facts_of(name: str) -> dict:
    return json.loads((conftest.MODELS / f"{name}.json").read_text())


def test_onnx_runtime_runs_what_lathe_writes(network, tmp_path):
    source, written = conftest.MODELS / f"{network}.pt2", tmp_path / "model.onnx"
    outcome = lathe("convert", source, written)
    if network in REFUSED:
        assert outcome.code == 1 and REFUSED[network] in outcome.messages and not written.exists(), outcome.messages
        pytest.skip("has operators without a translation, and says so")
    assert not outcome.problem, outcome.problem
    onnx.checker.check_model(str(written), full_check=True)
    facts = facts_of(network)
    for which in range(facts["sizes"]):
        given = conftest.MODELS / f"{network}.{which}.in.safetensors"
        found = outputs_of(written, numbered(load_file(given), "in"))
        if facts["train"]:  # the file is for inference, Lathe and eager would run it as it was exported
            assert all(np.isfinite(output).all() for output in found)
            continue
        wanted = tmp_path / f"{which}.out.safetensors"
        problem = lathe("run", source, "--inputs", given, "--outputs", wanted).problem
        assert not problem, problem
        wrong = differences(found, numbered(load_file(wanted), "out"))
        assert not wrong, f"size {which}: {wrong}"


class Chain(nn.Sequential):
    """Layers one after the other, so that integers can stay integers between them."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(),
                         nn.Conv2d(24, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 32), nn.ReLU(), nn.Linear(32, 10))


def export(network: nn.Module, inputs: torch.Tensor, path: pathlib.Path) -> None:
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(network, (inputs,), dynamic_shapes=({0: batch},), strict=False), path)


def interpreted(folder: pathlib.Path, inputs: torch.Tensor) -> np.ndarray:
    """What Lathe's interpreter computes of the .pt2 file."""
    save_file({"in.0": inputs.numpy()}, folder / "x.safetensors")
    problem = lathe("run", folder / "out.pt2", "--inputs", folder / "x.safetensors", "--outputs", folder / "y.safetensors").problem
    assert not problem, problem
    return load_file(folder / "y.safetensors")["out.0"]


def compressed(recipe: str, network: nn.Module, inputs: torch.Tensor, folder: pathlib.Path) -> tuple[pathlib.Path, np.ndarray, str]:
    """The .onnx file that a recipe leaves, what Lathe's interpreter computes of its .pt2, and what was said."""
    export(network, inputs, folder / "in.pt2")
    outcome = lathe("apply", recipe, folder / "in.pt2", "-o", folder / "out.pt2", "-o", folder / "out.onnx", "--latency-seconds", "0.05")
    assert not outcome.problem, outcome.problem
    onnx.checker.check_model(str(folder / "out.onnx"), full_check=True)
    return folder / "out.onnx", interpreted(folder, inputs), outcome.messages


def operators(path: pathlib.Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def optimized_operators(path: pathlib.Path, folder: pathlib.Path) -> list[str]:
    session(path, folder / "optimized.onnx")
    return operators(folder / "optimized.onnx")


def close_and_agreeing(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    assert np.array_equal(found.argmax(-1), wanted.argmax(-1))
    gap = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert gap <= tolerance, gap


@pytest.mark.parametrize("codes", [(0, 255), (-128, 127)])
def test_integer_kernels_run_a_quantized_chain(tmp_path, codes):
    torch.manual_seed(1)
    network, inputs = Chain(), torch.randn(32, 3, 16, 16)
    path, wanted, _ = compressed("quantize.weights{bits=8}", rounded(network, inputs, *codes), inputs, tmp_path)
    # A code may fall to the other side where integers are summed in another order than floats, by one step of the codes.
    close_and_agreeing(outputs_of(path, [inputs.numpy()])[0], wanted, 0.02)
    found = optimized_operators(path, tmp_path)
    assert found.count("QLinearConv") == 3 and "Conv" not in found, found
    assert found.count("QGemm") == 2 and "Gemm" not in found, found


def test_fewer_codes_than_a_byte_has_are_clipped_and_it_is_said(tmp_path):
    torch.manual_seed(6)
    network, inputs = Chain(), torch.randn(32, 3, 16, 16)
    path, wanted, said = compressed("quantize.weights{bits=8}", rounded(network, inputs, 0, 127), inputs, tmp_path)
    close_and_agreeing(outputs_of(path, [3 * inputs.numpy()])[0], interpreted(tmp_path, 3 * inputs), 0.04)
    assert "activations of 128 codes" in said, said
    assert operators(path).count("Clip") == 5


def test_a_quantized_residual_network_classifies_as_the_interpreter_does(tmp_path):
    torch.manual_seed(2)
    network, inputs = own_models.ResNet20("B"), torch.randn(32, 3, 32, 32)
    randomise(network)
    path, wanted, _ = compressed("fold.batch_norm,quantize.weights{bits=8}", rounded(network, inputs), inputs, tmp_path)
    close_and_agreeing(outputs_of(path, [inputs.numpy()])[0], wanted, 0.02)
    found = optimized_operators(path, tmp_path)
    assert found.count("QLinearConv") >= 9, found  # the first of each block; the second gives floats to the sum


@pytest.mark.parametrize("options, opset, kind", [
    ("bits=8", 17, onnx.TensorProto.INT8),
    ("bits=8,grid=affine", 17, onnx.TensorProto.UINT8),
    ("bits=3", 17, onnx.TensorProto.INT8),
    ("bits=4", 21, onnx.TensorProto.INT4),
    ("bits=4,granularity=tensor", 21, onnx.TensorProto.INT4),
    ("bits=4,grid=affine,granularity=group:8", 21, onnx.TensorProto.UINT4),
    ("bits=8,granularity=group:8", 21, onnx.TensorProto.INT8),
    ("bits=2,granularity=group:7", 21, onnx.TensorProto.INT8),
])
def test_quantized_weights_are_integers_in_the_file(tmp_path, options, opset, kind):
    torch.manual_seed(3)
    network, inputs = Chain(), torch.randn(8, 3, 16, 16)
    path, wanted, said = compressed(f"quantize.weights{{{options}}}", network.eval(), inputs, tmp_path)
    model = onnx.load(path)
    assert model.opset_import[0].version == opset and (opset == 17 or f"opset {opset}" in said), said
    codes = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_codes")]
    assert len(codes) == 5 and {tensor.data_type for tensor in codes} == {kind}
    close_and_agreeing(outputs_of(path, [inputs.numpy()])[0], wanted, TOLERANCE)


def test_linear_layers_on_sequences_keep_their_integers(tmp_path):
    torch.manual_seed(4)
    # The first weight is larger than what is folded without asking.
    network, inputs = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 16)), torch.randn(4, 7, 512)
    path, wanted, _ = compressed("quantize.weights{bits=4,granularity=group:16}", network.eval(), inputs, tmp_path)
    close_and_agreeing(outputs_of(path, [inputs.numpy()])[0], wanted, TOLERANCE)
    assert "Transpose" not in operators(path), "the codes are written as MatMul takes them"
    assert optimized_operators(path, tmp_path).count("MatMulNBits") == 2, "its kernel for weights of 4 bits"


def test_bfloat16_is_a_valid_file(tmp_path):
    torch.manual_seed(8)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
                            nn.Flatten(), nn.Linear(4, 5)).eval().bfloat16()
    inputs = torch.randn(2, 3, 8, 8).bfloat16()
    export(network, inputs, tmp_path / "in.pt2")
    ran = lathe("convert", tmp_path / "in.pt2", tmp_path / "out.onnx")
    assert not ran.problem, ran.problem
    model = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(model, full_check=True)  # the types that each operator takes, too
    # ONNX Runtime's CPU has no convolution in bfloat16, so ONNX's own evaluator judges.
    name = model.graph.input[0].name
    found = ReferenceEvaluator(model).run(None, {name: inputs.float().numpy().astype(ml_dtypes.bfloat16)})[0]
    wanted = network(inputs).float().detach().numpy()
    assert np.abs(found.astype(np.float32) - wanted).max() <= 2**-6 * np.abs(wanted).max()


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("function, sizes", [
    (lambda x: F.interpolate(x, (1, 1), mode="bilinear"), (3, 5, 7)),
    (lambda x: F.interpolate(x, (1, 3), mode="bicubic"), (3, 5, 7)),
    (lambda x: F.interpolate(x, 1, mode="linear"), (3, 6)),
    (lambda x: x.narrow(1, -2, 2), (5, 3)),
    (lambda x: x.flip([]), (4, 3)),
], ids=["bilinear", "bicubic", "linear", "narrow", "flip"])
def test_corners_of_operators(tmp_path, function, sizes):
    torch.manual_seed(7)
    inputs = torch.randn(3, *sizes)
    export(Function(function), inputs, tmp_path / "in.pt2")
    problem = lathe("convert", tmp_path / "in.pt2", tmp_path / "out.onnx").problem
    assert not problem, problem
    assert not differences(outputs_of(tmp_path / "out.onnx", [inputs.numpy()]), [function(inputs).numpy()])


def test_a_bound_on_one_side_leaves_infinities_alone(tmp_path):
    inputs = torch.tensor([[-torch.inf, -1.0, 0.5, torch.inf]] * 2)
    for name, function in {"low": lambda x: x.clamp(min=0), "high": lambda x: x.clamp(max=0)}.items():
        export(Function(function), inputs, tmp_path / f"{name}.pt2")
        problem = lathe("convert", tmp_path / f"{name}.pt2", tmp_path / f"{name}.onnx").problem
        assert not problem, problem
        assert np.array_equal(outputs_of(tmp_path / f"{name}.onnx", [inputs.numpy()])[0], function(inputs).numpy())


@pytest.mark.parametrize("step, layers, dtype", [
    ({"pass": "quantize.static"}, nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)), torch.float32),  # one channel, one scale
    ({"pass": "quantize.weights", "bits": 4}, nn.Sequential(nn.Linear(16, 8), nn.GLU()), torch.float32),  # opset 21
    ({"pass": "quantize.weights", "bits": 4}, nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), torch.float16),
    ({"pass": "quantize.static"}, nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)), torch.float16),
], ids=["one_scale", "glu", "half_weights", "half_activations"])
def test_quantized_networks_that_are_read_by_onnx_runtime(tmp_path, step, layers, dtype):
    torch.manual_seed(8)
    inputs = torch.randn(8, 16).to(dtype)
    export(layers.to(dtype).eval(), inputs, tmp_path / "in.pt2")
    save_file({"inputs": inputs.numpy()}, tmp_path / "samples.safetensors")
    (tmp_path / "recipe.json").write_text(json.dumps({
        "lathe": 1, "data": {"calibration": {"tensors": {"path": str(tmp_path / "samples.safetensors")}}},
        "steps": [step]}))
    outcome = lathe("apply", tmp_path / "recipe.json", tmp_path / "in.pt2", "-o", tmp_path / "out.pt2", "-o", tmp_path / "out.onnx",
                    "--latency-seconds", "0.05")
    assert not outcome.problem, outcome.problem
    wanted = interpreted(tmp_path, inputs)
    found = outputs_of(tmp_path / "out.onnx", [inputs.numpy()])[0]
    assert found.dtype == wanted.dtype
    assert np.abs(found.astype(np.float32) - wanted.astype(np.float32)).max() <= 0.02 * np.abs(wanted).max()


def test_pruned_weights_are_zero_and_the_provenance_travels(tmp_path):
    torch.manual_seed(5)
    network, inputs = Chain(), torch.randn(4, 3, 16, 16)
    path, wanted, _ = compressed("prune.magnitude{sparsity=0.5,scope=tensor}", network.eval(), inputs, tmp_path)
    close_and_agreeing(outputs_of(path, [inputs.numpy()])[0], wanted, TOLERANCE)
    model = onnx.load(path)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name.endswith(".weight")]
    assert len(weights) == 5 and all((weight == 0).mean() >= 0.5 for weight in weights)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert "prune.magnitude" in metadata["lathe.provenance"]
