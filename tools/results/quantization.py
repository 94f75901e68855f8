#!/usr/bin/env python3
"""Runs the experiments of docs/results/quantization.md, and writes that page from their logs.

    tools/results/quantization.py run [NAME ...]    runs what has no log yet (all, or names with a glob)
    tools/results/quantization.py write             writes docs/results/quantization.md
    tools/results/quantization.py list              what there is

LATHE_RESNET20 and LATHE_RESNET56 name the checkpoints (the public CIFAR-10 ResNets of akamaster), LATHE_TEXT the text of the
character models. experiments.py says what a log holds.
"""

from experiments import CHAR_GPT as GPT
from experiments import NETWORKS, Experiment, Page, Table, cifar, text

SEEDS = (1, 2, 3)

FOLD = {"pass": "fold.batch_norm"}
TUNE = {"pass": "tune.batch_norm"}


def bits_of(column):
    return int(column.removeprefix("int"))


def static_table():
    table = Table("int8, weights and activations, 512 images: top-1, %", ["ResNet-20", "ResNet-56"])
    # One row a method; the column is the network, so each cell is added on its own.
    for name, title, steps, reference in (
        ("fp32", "not quantized", [FOLD], ""),
        ("static", "`quantize.static`", [FOLD, {"pass": "quantize.static"}], "91.80 / 93.55 (torchao / NNCF)"),
    ):
        cells = {}
        for network, column in (("resnet20", "ResNet-20"), ("resnet56", "ResNet-56")):
            cells[column] = Experiment(f"{name}-{network}", title, cifar(steps, 512), NETWORKS[network], architecture=f"{network}-cifar10")
        table.rows.append((title, cells, reference))
    return table


def weights_table():
    table = Table("ResNet-20, weights only, a scale a channel, 1024 images: top-1, %", ["int4", "int3", "int2"])

    def method(name, title, step, before=(), after=(), seeds=(1,), reference=""):
        def recipe(column):
            return cifar([*before, {**step, "bits": bits_of(column)}, *after], 1024)

        table.add(f"w-{name}", title, "resnet20", recipe, seeds, reference)

    rounded = {"pass": "quantize.weights", "grid": "affine"}
    gptq = {"pass": "quantize.gptq"}
    method("rtn", "round to nearest", rounded, reference="90.56 / 84.0 / -")
    method("rtn-tuned", "round to nearest, MSE range, then `tune.batch_norm`", {**rounded, "range": "mse"}, after=[TUNE])
    method("gptq-layer", "`quantize.gptq`, `target=layer` (the paper's)", {**gptq, "target": "layer"}, reference="91.67 / 91.36 / 82.0")
    method("gptq", "`quantize.gptq`", gptq)
    method("gptq-tuned", "`quantize.gptq`, then `tune.batch_norm`", gptq, after=[TUNE], reference="- / - / 88.25")
    for name in ("adaround", "brecq"):
        step = {"pass": f"quantize.{name}", "grid": "affine"}
        method(name, f"`quantize.{name}`", step, before=[FOLD], seeds=SEEDS)
    return table


def ladder_table():
    columns = ["W4A8", "W4A4", "W3A3"]
    table = Table("ResNet-20, weights and activations, 1024 images: top-1, % / cross-entropy", columns, beside="loss")

    def method(name, step, seeds=SEEDS, title="", before=(FOLD,), after=()):
        def recipe(column):
            bits = {"bits": int(column[1]), "activations": int(column[3])}
            return cifar([*before, {**step, **bits}, *after], 1024, ("top1", "loss"))

        table.add(f"wa-{name}", title or f"`quantize.{name}`", "resnet20", recipe, seeds)

    method("static", {"pass": "quantize.static"}, (1,))
    for name in ("adaround", "brecq"):
        method(name, {"pass": f"quantize.{name}"})
    method("brecq-fisher", {"pass": "quantize.brecq", "loss": "fisher"}, title="`quantize.brecq`, `loss=fisher`")
    method("qdrop", {"pass": "quantize.qdrop"})
    step = {"pass": "quantize.pd_quant"}
    method("pd_quant-uncorrected", {**step, "correction": 0}, title="`quantize.pd_quant`, `correction=0`")
    method("pd_quant", step, before=(), after=(FOLD,))  # corrects by the statistics of batch norms
    return table


def sparsity_table():
    columns = ["50 %", "70 %", "80 %", "2:4"]
    table = Table("ResNet-20, one-shot sparsity (stem and classifier kept), 1024 images: top-1, %", columns)
    where = {"not": {"name": ["conv1.weight", "linear.weight"]}}

    def method(name, title, dense, n_m, after=(), reference=""):
        def recipe(column):
            step = n_m if ":" in column else {**dense, "sparsity": int(column.split()[0]) / 100}
            return None if step is None else cifar([{**step, "where": where}, *after], 1024)

        table.add(f"s-{name}", title, "resnet20", recipe, reference=reference)

    magnitude, n_m = {"pass": "prune.magnitude"}, {"pass": "prune.n_m"}
    method("magnitude", "`prune.magnitude`, `prune.n_m`", magnitude, n_m)
    method("magnitude-tuned", "the same, then `tune.batch_norm`", magnitude, n_m, [TUNE])
    by_layer = {"pass": "prune.sparse_gpt", "target": "layer"}
    method("sparse_gpt-layer", "`prune.sparse_gpt`, `target=layer` (the paper's)", by_layer, {**by_layer, "n": 2, "m": 4},
           reference="91.55 / - / 42.4 / 88.86")
    for name, reference, tuned in (
        ("wanda", "", ""),
        ("sparse_gpt", "", "91.42 / - / 78.7 / 90.66 (paper's target)"),
        ("obc", "", ""),
    ):
        step = {"pass": f"prune.{name}"}
        method(name, f"`prune.{name}`", step, {**step, "n": 2, "m": 4}, reference=reference)
        method(f"{name}-tuned", f"`prune.{name}`, then `tune.batch_norm`", step, {**step, "n": 2, "m": 4}, [TUNE], tuned)
    return table


def language_table():
    table = Table("Character GPT, groups of 64: perplexity on held-out text", ["int4", "int3"], "perplexity")
    where = {"kind": "linear"}

    def method(name, step):
        def recipe(column):
            return text([{**step, "bits": bits_of(column), "where": where}])

        table.add(f"gpt-{name}", f"`quantize.{name}`", GPT, recipe)

    for name, grid in (
        ("weights", {"granularity": "group:64", "grid": "affine"}),
        ("hqq", {"group_size": 64}),
        ("awq", {"group_size": 64, "grid": "affine"}),
        ("gptq", {"granularity": "group:64", "grid": "affine"}),
    ):
        method(name, {"pass": f"quantize.{name}", **grid})
    return table


def sparse_language_table():
    table = Table("Character GPT, one-shot sparsity: perplexity on held-out text", ["50 %", "2:4"], "perplexity")
    where = {"kind": "linear"}
    for name, n_m in (("magnitude", "n_m"), ("wanda", "wanda"), ("sparse_gpt", "sparse_gpt")):
        def recipe(column, name=name, n_m=n_m):
            step = {"pass": f"prune.{n_m}", "n": 2, "m": 4} if ":" in column else {"pass": f"prune.{name}", "sparsity": 0.5}
            return text([{**step, "where": where}])

        table.add(f"gpt-{name}", f"`prune.{name}`", GPT, recipe)
    return table


TABLES = [static_table(), weights_table(), ladder_table(), sparsity_table(), language_table(), sparse_language_table()]
PAGE = Page("quantization", [experiment for table in TABLES for experiment in table.experiments()])


def write():
    PAGE.write("".join(table.text(PAGE) for table in TABLES))


if __name__ == "__main__":
    PAGE.main(__doc__, write)
