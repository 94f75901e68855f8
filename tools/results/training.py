#!/usr/bin/env python3
"""Runs the experiments of docs/results/training.md, and writes that page from their logs.

    tools/results/training.py run [NAME ...]    runs what has no log yet (all, or names with a glob)
    tools/results/training.py write             writes docs/results/training.md
    tools/results/training.py list              what there is

An experiment is a chain of `lathe apply` runs, one seed each. Its log, docs/results/training/<name>-<seed>.json, holds
the commands, the figures before and after of each run's report.json, and the epochs of the last one. Models go to
build/results.
"""

import fnmatch
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOGS = ROOT / "docs/results/training"
MODELS = ROOT / "build/results"
LATHE = os.environ.get("LATHE_BIN", str(ROOT / "build/release/tools/lathe"))
TEACHER = os.environ.get("LATHE_TEACHER", str(ROOT / "../shared/checkpoints/resnet56-cifar10.th"))
RESNET20 = str(ROOT / "recipes/checkpoints/resnet20-cifar10.safetensors")


class Experiment:
    """`source` is a model, or the name of the experiment whose result is the model."""

    def __init__(self, name, title, recipe, source, published="", seeds=(1,), settings=(), schedule=""):
        self.name, self.title, self.recipe, self.source = name, title, recipe, source
        self.published, self.seeds, self.settings, self.schedule = published, seeds, settings, schedule


MNIST = (1, 2, 3)
EXPERIMENTS = [
    Experiment("lenet-300-100", "LeNet-300-100, dense", "train/lenet-300-100-mnist", "zoo:lenet-300-100", "1.64 (Han et al.)", MNIST,
               schedule="20 epochs from scratch"),
    Experiment("lenet-300-100-12x", "magnitude, prune and retrain to 12x", "papers/han-2015-lenet-300-100", "lenet-300-100",
               "1.59 (Han et al.)", MNIST, schedule="two rounds of 10 epochs"),
    Experiment("lenet-300-100-gradual95", "gradual, 95 %", "papers/zhu-2018-mnist", "lenet-300-100", "1.6 (SNIP, 95 %)", MNIST,
               ["variables.sparsity=0.95"], "15 epochs"),
    Experiment("lenet-300-100-gradual98", "gradual, 98 %", "papers/zhu-2018-mnist", "lenet-300-100", "2.4 (SNIP, 98 %)", MNIST,
               ["variables.sparsity=0.98"], "15 epochs"),
    Experiment("lenet-5", "LeNet-5 (Caffe), dense", "train/lenet-5-mnist", "zoo:lenet5-caffe", "0.80 (Han et al.)", MNIST,
               ["variables.epochs=12"], "12 epochs from scratch"),
    Experiment("lenet-5-12x", "magnitude, prune and retrain to 12x", "papers/han-2015-lenet-5", "lenet-5", "0.77 (Han et al.)", MNIST,
               schedule="two rounds of 8 epochs"),
    Experiment("lenet-5-gradual95", "gradual, 95 %", "papers/zhu-2018-mnist", "lenet-5", "", MNIST,
               ["variables.sparsity=0.95", "variables.epochs=10"], "10 epochs"),
    Experiment("lenet-5-gradual98", "gradual, 98 %", "papers/zhu-2018-mnist", "lenet-5", "0.8 (SNIP, 98 %)", MNIST,
               ["variables.sparsity=0.98", "variables.epochs=10"], "10 epochs"),
    Experiment("resnet20", "ResNet-20, dense", "train/resnet20-cifar10", "zoo:resnet20-cifar10", "8.75 (He et al., 200 epochs)",
               settings=["variables.epochs=18"], schedule="18 epochs from scratch"),
    Experiment("resnet20-gradual70", "gradual, 70 %", "papers/zhu-2018-resnet20", RESNET20, "8.57 at 69 % (Distiller, 180 epochs)",
               settings=["variables.sparsity=0.7"], schedule="8 epochs"),
    Experiment("resnet20-gradual80", "gradual, 80 %", "papers/zhu-2018-resnet20", RESNET20, settings=["variables.sparsity=0.8"],
               schedule="8 epochs"),
    Experiment("resnet20-gradual90", "gradual, 90 %", "papers/zhu-2018-resnet20", RESNET20, settings=["variables.sparsity=0.9"],
               schedule="8 epochs"),
    Experiment("resnet20-alone", "student alone", "papers/hinton-2015-resnet20", "zoo:resnet20-cifar10",
               settings=["variables.labels=1", "variables.logits=0", f"variables.teacher={TEACHER}"], schedule="8 epochs from scratch"),
    Experiment("resnet20-distilled", "student of ResNet-56", "papers/hinton-2015-resnet20", "zoo:resnet20-cifar10",
               settings=[f"variables.teacher={TEACHER}"], schedule="8 epochs from scratch"),
    Experiment("resnet20-int4", "int4 weights, round to nearest", "models/cifar10-int4-rounded", RESNET20, schedule="no training"),
    Experiment("resnet20-qat4", "int4 weights, trained (QAT)", "quantize/qat", RESNET20, "8.54 (DoReFa W4, 200 epochs)",
               schedule="4 epochs"),
]
BY_NAME = {experiment.name: experiment for experiment in EXPERIMENTS}


def model_of(experiment, seed):
    return MODELS / f"{experiment.name}-{seed}.safetensors"


def source_of(experiment, seed):
    if experiment.source in BY_NAME:
        return str(model_of(BY_NAME[experiment.source], seed))
    if experiment.source.startswith("zoo:"):
        return f"{experiment.source}{{seed={seed}}}"
    return experiment.source


def run(experiment, seed):
    output = model_of(experiment, seed)
    report = output.with_suffix("")
    epochs = report / "epochs.jsonl"
    report.mkdir(parents=True, exist_ok=True)
    settings = [f"seed={seed}", *experiment.settings]
    recipe = json.loads((ROOT / f"recipes/{experiment.recipe}.json").read_text())
    last = max((i for i, step in enumerate(recipe["steps"]) if "train" in step), default=None)
    if last is not None:
        settings.append(f"steps.{last}.train.log={epochs}")
    source = source_of(experiment, seed)
    command = [LATHE, "apply", f"recipes/{experiment.recipe}.json", source, "-o", str(output), "--report", str(report)]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, cwd=ROOT, check=True)
    told = json.loads((report / "report.json").read_text())
    log = {
        "experiment": experiment.name,
        "seed": seed,
        "recipe": experiment.recipe,
        "settings": [setting for setting in settings if not setting.startswith(("steps.", "variables.teacher"))],
        "threads": told["threads"],
        "before": {"metrics": told["before"]["metrics"]},
        "after": {
            "metrics": told["after"]["metrics"],
            "file_bytes": told["after"]["file_bytes"],
            "parameters": told["after"]["cost"]["parameters"],
            "nonzeros": told["after"]["cost"]["nonzeros"],
        },
        "epochs": [json.loads(line) for line in epochs.read_text().splitlines()] if epochs.exists() else [],
    }
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f"{experiment.name}-{seed}.json").write_text(json.dumps(log, indent=1) + "\n")


def logs_of(experiment):
    files = [LOGS / f"{experiment.name}-{seed}.json" for seed in experiment.seeds]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def row(experiment):
    logs = logs_of(experiment)
    if not logs:
        return None
    errors = [100 - log["after"]["metrics"]["top1"] for log in logs]
    before = [100 - log["before"]["metrics"]["top1"] for log in logs if log["before"]["metrics"]]
    mean = f"{statistics.mean(errors):.2f}"
    spread = f" ({min(errors):.2f} to {max(errors):.2f})" if len(errors) > 1 else ""
    after = logs[0]["after"]
    kept = after["nonzeros"] / after["parameters"]
    return (f"| {experiment.title} | {experiment.schedule} | {statistics.mean(before):.2f} | **{mean}**{spread} | {len(errors)} | "
            f"{100 * kept:.1f} % | {after['file_bytes']:,} | {experiment.published} |")


def write():
    page = (ROOT / "tools/results/training.head.md").read_text().rstrip() + "\n"
    for title, names in (("MNIST", "lenet*"), ("CIFAR-10", "resnet20*")):
        rows = [row(experiment) for experiment in EXPERIMENTS if fnmatch.fnmatch(experiment.name, names)]
        page += f"\n## {title}\n\n| what | schedule | error before, % | error after, % | seeds | non-zeros | bytes | published |\n"
        page += "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        page += "\n".join(line for line in rows if line) + "\n"
    missing = [experiment.name for experiment in EXPERIMENTS if len(logs_of(experiment)) < len(experiment.seeds)]
    if missing:
        page += f"\nNot run yet, in whole or in part: {', '.join(missing)}.\n"
    (ROOT / "docs/results/training.md").write_text(page)


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("run", "write", "list"):
        sys.exit(__doc__)
    if sys.argv[1] == "write":
        return write()
    wanted = sys.argv[2:] or ["*"]
    for experiment in EXPERIMENTS:
        if not any(fnmatch.fnmatch(experiment.name, glob) for glob in wanted):
            continue
        for seed in experiment.seeds:
            done = (LOGS / f"{experiment.name}-{seed}.json").exists()
            if sys.argv[1] == "list":
                print(f"{experiment.name} seed {seed}: {'done' if done else 'to run'}")
            elif not done:
                run(experiment, seed)


if __name__ == "__main__":
    main()
