"""The inference engine against PyTorch and ONNX Runtime, in turns on one machine, as ratios of medians.

usage: engine_against_others.py LATHE [--networks N ...] [--batches B ...] [--threads T ...] [--rounds N] [--seconds S] [--json]

Each runtime runs in a process of its own and is asked for a median in turn, so a change of the machine's speed meets
all alike; a figure is the median over the rounds, a ratio that of the medians. Networks are exported to .pt2 (Lathe)
and .onnx (ONNX Runtime) from the same modules with the same weights. int8 is static on both sides, activations by
minimum and maximum on the same random samples: `quantize.static` here, onnxruntime.quantization there. Peak memory
is that of a process that loads the file and runs it once, libraries included.

Needs: torch, numpy; for ONNX Runtime also onnxruntime, onnx and onnxscript (else its rows are left out, and it says so).
"""

import argparse
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from forward_against_python import NETWORKS, export, timings  # noqa: E402

CALIBRATION_SAMPLES = 64
# A process begins with the peak of the one that it was forked from, so a small one starts it.
PEAK_OF_CHILD = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""
RUN_ONCE_BY_ONNX_RUNTIME = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: numpy.load(sys.argv[2])})
"""
RUN_ONCE_BY_TORCH = """
import sys, numpy, torch
with torch.no_grad():
    torch.load(sys.argv[1], weights_only=False)(torch.from_numpy(numpy.load(sys.argv[2])))
"""


def peak_mib(command):
    """The peak memory of a process that does nothing but this."""
    launcher = [sys.executable, "-c", PEAK_OF_CHILD, *map(str, command)]
    return float(subprocess.run(launcher, check=True, stdout=subprocess.PIPE, text=True).stdout)


def has_onnx_runtime():
    return all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript"))


def random_inputs(name, count):
    """What stands in for data: ids for the encoder, normal pixels for the others."""
    torch.manual_seed(1)
    zeros = NETWORKS[name][1](count)
    return torch.randint(0, 1000, zeros.shape) if zeros.dtype == torch.long else torch.randn(zeros.shape)


def worker(runtime, name, file, batch, threads):
    """Answers each line of standard input with the median milliseconds of that many seconds of runs."""
    x = random_inputs(name, batch)
    if runtime == "eager":
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        module = NETWORKS[name][0]().eval()

        def run():
            with torch.no_grad():
                module(x)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x.numpy()}

        def run():
            session.run(None, feed)

    timings(run, 0.3)
    for line in sys.stdin:
        print(statistics.median(timings(run, float(line))), flush=True)


class PythonRuntime:
    """A worker process that stays warm between its turns."""

    def __init__(self, runtime, name, file, batch, threads):
        self.runtime, self.name, self.file, self.batch = runtime, name, file, batch
        command = [sys.executable, __file__, "--worker", runtime, name, str(file), str(batch), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def median(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def peak_mib(self):
        import numpy

        with tempfile.TemporaryDirectory() as folder:
            numpy.save(f"{folder}/x.npy", random_inputs(self.name, self.batch).numpy())
            if self.runtime != "eager":
                return peak_mib([sys.executable, "-c", RUN_ONCE_BY_ONNX_RUNTIME, self.file, f"{folder}/x.npy"])
            torch.save(NETWORKS[self.name][0]().eval(), f"{folder}/module.pth")
            here = str(pathlib.Path(__file__).parent)
            code = f"import sys; sys.path.insert(0, {here!r})\n{RUN_ONCE_BY_TORCH}"
            return peak_mib([sys.executable, "-c", code, f"{folder}/module.pth", f"{folder}/x.npy"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class LatheRuntime:
    def __init__(self, binary, name, file, batch, threads, arguments):
        arguments = [str(file), "--threads", str(threads), *arguments]
        self.command = [binary, "bench", *arguments, "--batch", str(batch), "--json"]
        self.run_once = [binary, "run", *arguments]
        self.inputs = random_inputs(name, batch)

    def median(self, seconds):
        # Interpreter and engine share the time; the engine's row is the last.
        command = [*self.command, "--seconds", str(seconds)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[-1]["median_ms"]

    def peak_mib(self):
        from safetensors.torch import save_file

        with tempfile.TemporaryDirectory() as folder:
            save_file({"in.0": self.inputs}, f"{folder}/in.safetensors")
            command = [*self.run_once, "--inputs", f"{folder}/in.safetensors", "--outputs", f"{folder}/out.safetensors"]
            return peak_mib(command)

    def close(self):
        pass


def quantize_by_lathe(binary, name, file, folder):
    from safetensors.torch import save_file

    samples, recipe, out = folder / f"{name}.safetensors", folder / f"{name}.json", folder / f"{name}.int8.pt2"
    save_file({"inputs": random_inputs(name, CALIBRATION_SAMPLES)}, samples)
    recipe.write_text(json.dumps({
        "lathe": 1, "name": "int8",
        "data": {"calibration": {"tensors": {"path": str(samples)}}},
        "steps": [{"pass": "fold.batch_norm"}, {"pass": "quantize.static", "activation_range": "minmax"}],
    }))
    subprocess.run([binary, "apply", recipe, file, "-o", out], check=True, capture_output=True, text=True)
    return out


def quantize_by_onnx_runtime(name, file, folder):
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(quantization.CalibrationDataReader):
        def __init__(self, input_name):
            self.rows = iter([{input_name: row[None].numpy()} for row in random_inputs(name, CALIBRATION_SAMPLES)])

        def get_next(self):
            return next(self.rows, None)

    import onnx

    prepared, out = folder / f"{name}.prepared.onnx", folder / f"{name}.int8.onnx"
    quant_pre_process(str(file), str(prepared))
    samples = Samples(onnx.load(str(prepared)).graph.input[0].name)
    quantization.quantize_static(str(prepared), str(out), samples, quant_format=quantization.QuantFormat.QDQ,
                                 per_channel=True, activation_type=quantization.QuantType.QUInt8,
                                 weight_type=quantization.QuantType.QInt8)
    return out


def export_onnx(name, folder):
    file = folder / f"{name}.onnx"
    torch.manual_seed(0)
    module, x = NETWORKS[name][0]().eval(), NETWORKS[name][1](2)
    torch.onnx.export(module, (x,), str(file), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    return file


def prepare(binary, name, folder, with_onnx):
    """The files of a network: what each runtime is to run."""
    files = {"lathe fp32": export(name, folder)}
    try:
        files["lathe int8"] = quantize_by_lathe(binary, name, files["lathe fp32"], folder)
    except (subprocess.CalledProcessError, ImportError) as error:
        print(f"{name}: no int8 file of lathe: {getattr(error, 'stderr', error)}", file=sys.stderr)
    if with_onnx:
        files["onnxruntime fp32"] = export_onnx(name, folder)
        files["onnxruntime int8"] = quantize_by_onnx_runtime(name, files["onnxruntime fp32"], folder)
    return files


def compare(binary, name, files, batch, threads, rounds, seconds):
    """Medians in milliseconds and peak memory in MiB by runtime; all of them take turns."""
    runtimes = {"eager fp32": PythonRuntime("eager", name, "-", batch, threads)}
    for label, file in files.items():
        if label.startswith("onnxruntime"):
            runtimes[label] = PythonRuntime("onnxruntime", name, file, batch, threads)
        else:
            runtimes[label] = LatheRuntime(binary, name, file, batch, threads, ["--engine"])
    if "lathe fp32" in runtimes:
        runtimes["lathe bf16"] = LatheRuntime(binary, name, files["lathe fp32"], batch, threads,
                                              ["--engine", "--precision", "bfloat16"])
    medians = {label: [] for label in runtimes}
    for _ in range(rounds):
        for label, runtime in runtimes.items():
            medians[label].append(runtime.median(seconds))
    peaks = {label: runtime.peak_mib() for label, runtime in runtimes.items()}
    for runtime in runtimes.values():
        runtime.close()
    return {label: statistics.median(values) for label, values in medians.items()}, peaks


def text_of(row):
    """`lathe` against `onnxruntime` of the same precision, and everything against eager."""
    lines = [f"{row['network']} batch {row['batch']} threads {row['threads']}"]
    for label, milliseconds in row["median_ms"].items():
        line = (f"  {label:18} {milliseconds:10.3f} ms  {row['peak_mib'][label]:6.0f} MiB"
                f"  {row['median_ms']['eager fp32'] / milliseconds:6.2f} x eager")
        rival = label.replace("lathe", "onnxruntime")
        if rival != label and rival in row["median_ms"]:
            line += f"  {row['median_ms'][rival] / milliseconds:6.2f} x {rival}"
        lines.append(line)
    return "\n".join(lines)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        return worker(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lathe")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with_onnx = has_onnx_runtime()
    if not with_onnx:
        print("without ONNX Runtime: pip install onnxruntime onnx onnxscript", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            files = prepare(options.lathe, name, pathlib.Path(folder), with_onnx)
            for threads in options.threads:
                for batch in options.batches:
                    medians, peaks = compare(options.lathe, name, files, batch, threads, options.rounds, options.seconds)
                    rows.append({"network": name, "batch": batch, "threads": threads, "median_ms": medians, "peak_mib": peaks})
                    if not options.json:
                        print(text_of(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
