#!/usr/bin/env python3
"""Runs the experiments of docs/results/training.md, and writes that page from their logs.

    tools/results/training.py run [NAME ...]    runs what has no log yet (all, or names with a glob)
    tools/results/training.py write             writes docs/results/training.md
    tools/results/training.py list              what there is

experiments.py says what a log holds.
"""

import fnmatch
import os
import statistics

from experiments import RESNET20, ROOT, Experiment, Page

TEACHER = os.environ.get("LATHE_TEACHER", str(ROOT / "../shared/checkpoints/resnet56-cifar10.th"))

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
               settings=["variables.epochs=30"], schedule="30 epochs from scratch"),
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
PAGE = Page("training", EXPERIMENTS)


def row(experiment):
    logs = PAGE.logs_of(experiment)
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
    body = ""
    for title, names in (("MNIST", "lenet*"), ("CIFAR-10", "resnet20*")):
        rows = [row(experiment) for experiment in EXPERIMENTS if fnmatch.fnmatch(experiment.name, names)]
        body += f"\n## {title}\n\n| what | schedule | error before, % | error after, % | seeds | non-zeros | bytes | published |\n"
        body += "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        body += "\n".join(line for line in rows if line) + "\n"
    PAGE.write(body)


if __name__ == "__main__":
    PAGE.main(__doc__, write)
