#!/usr/bin/env python3
"""Runs the experiments of docs/results/structured.md, and writes that page from their logs.

    tools/results/structured.py run [NAME ...]    runs what has no log yet (all, or names with a glob)
    tools/results/structured.py write             writes docs/results/structured.md
    tools/results/structured.py list              what there is
    tools/results/structured.py latency           times the pruned models of build/results; on a quiet machine

LATHE_RESNET20 and LATHE_RESNET56 name the checkpoints (the public CIFAR-10 ResNets of akamaster), LATHE_TEXT the text of the
character models. experiments.py says what a log holds.
"""

import json
import statistics
import subprocess
import sys

from experiments import CHAR_GPT, FASHION_VIT, LATHE, MODELS, NETWORKS, Page, Table, cifar, fashion, text

SEEDS = (1, 2, 3)
INNER = "layer*.conv1*"
TUNE = {"pass": "tune.batch_norm"}
SCOPES = {"layer, inner": ("layer", INNER), "model, inner": ("model", INNER), "layer, all": ("layer", "*"), "model, all": ("model", "*")}
CRITERIA = ("l1", "l2", "batch_norm", "fpgm", "taylor", "lamp", "apoz", "hrank", "obs", "random")


def channels(scope="model", where=INNER, **options):
    return {"pass": "prune.channels", "budget": {"macs": 0.5}, "scope": scope, "where": where, **options}


def distilled(lr):
    return {
        "train": {
            "epochs": 1,
            "batch_size": 128,
            "optimizer": {"sgd": {"lr": lr, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}},
            "schedule": {"one_cycle": {"rise": 0.2, "start_divisor": 10, "final_divisor": 1000}},
            "precision": "bf16",
            "channels_last": True,
            "losses": [
                {"cross_entropy": {"weight": 0.1}},
                {"distill_logits": {"teacher": "original", "temperature": 4, "weight": 0.9}},
            ],
        }
    }


def scope_table(network, title, elsewhere):
    table = Table(title, list(SCOPES))

    def method(name, title, after=(), seeds=(1,), reference="", **options):
        def recipe(column):
            return cifar([channels(*SCOPES[column], **options), *after], 512)

        table.add(f"{network}-{name}", title, network, recipe, seeds, reference)

    method("plain", "`prune.channels` (L2)", reference=elsewhere)
    method("tuned", "the same, then `tune.batch_norm`", [TUNE])
    method("merge", "`compensate=merge`, then `tune.batch_norm`", [TUNE], compensate="merge")
    method("refit", "`compensate=refit`", compensate="refit")
    method("refit4", "`compensate=refit`, four rounds", compensate="refit", rounds=4)
    return table


def trained_table():
    table = Table("After one epoch of 391 steps, distilled from the original: top-1, %", ["ResNet-20", "ResNet-56"])
    for name, title, options, reference in (
        ("plain", "`prune.channels` (L2), model, inner; one epoch", {}, "85.38 / - (Torch-Pruning, 390 steps)"),
        ("refit", "`compensate=refit`, four rounds; one epoch", {"compensate": "refit", "rounds": 4}, ""),
    ):
        def recipe(column, options=options):
            return cifar([channels(**options), distilled(0.02)], 512)

        for column in table.columns:
            network = column.lower().replace("-", "")
            single = Table("", [column])
            single.add(f"trained-{name}", title, network, recipe, SEEDS)
            table.rows = table.rows if any(row[0] == title for row in table.rows) else [*table.rows, (title, {}, reference)]
            next(row for row in table.rows if row[0] == title)[1][column] = single.rows[0][1][column]
    return table


def criteria_table():
    columns = ["tuned", "refit"]
    table = Table("Criteria: ResNet-20, half the MACs, model-wide, inner channels: top-1, %", columns)
    for criterion in CRITERIA:
        def recipe(column, criterion=criterion):
            if column == "tuned":
                return cifar([channels(criterion=criterion), TUNE], 512)
            return cifar([channels(criterion=criterion, compensate="refit")], 512)

        table.add(f"criterion-{criterion}", f"`{criterion}`", "resnet20", recipe, SEEDS if criterion == "random" else (1,))
    return table


def language_table():
    columns = ["no training", "one epoch"]
    table = Table("Character GPT, 30 % fewer parameters: perplexity on held-out text", columns, "perplexity")
    training = {
        "train": {
            "epochs": 1,
            "batch_size": 32,
            "optimizer": {"adamw": {"lr": 1e-3, "beta2": 0.99, "weight_decay": 0.1}},
            "schedule": {"cosine": {"final": 0.1, "warmup_epochs": 0.1}},
            "clip_norm": 1,
            "precision": "bf16",
        }
    }
    for name, title, options in (
        ("plain", "`prune.channels` (L2)", {}),
        ("refit", "`compensate=refit`", {"compensate": "refit"}),
        ("refit4", "`compensate=refit`, four rounds", {"compensate": "refit", "rounds": 4}),
    ):
        def recipe(column, options=options):
            step = {"pass": "prune.channels", "budget": {"parameters": 0.7}, **options}
            return text([step] if column == columns[0] else [step, training])

        table.add(f"gpt-{name}", title, CHAR_GPT, recipe)
    return table


def vit_table():
    table = Table("ViT on Fashion-MNIST, 30 % fewer parameters: top-1, %", ["top-1"])
    epoch = {
        "train": {
            "epochs": 1,
            "batch_size": 128,
            "optimizer": {"adamw": {"lr": 1e-3, "weight_decay": 0.05}},
            "schedule": {"cosine": {"final": 0.01, "warmup_epochs": 0.1}},
            "clip_norm": 1,
            "precision": "bf16",
            "losses": [
                {"cross_entropy": {"weight": 0.1}},
                {"distill_logits": {"teacher": "original", "temperature": 4, "weight": 0.9}},
            ],
        }
    }
    for name, title, options, training in (
        ("plain", "`prune.channels` (L2)", {}, []),
        ("refit", "`compensate=refit`", {"compensate": "refit"}, []),
        ("refit4", "`compensate=refit`, four rounds", {"compensate": "refit", "rounds": 4}, []),
        ("plain-trained", "`prune.channels` (L2), one distilled epoch", {}, [epoch]),
        ("refit4-trained", "`compensate=refit`, four rounds, one distilled epoch", {"compensate": "refit", "rounds": 4}, [epoch]),
    ):
        def recipe(column, options=options, training=training):
            return fashion([{"pass": "prune.channels", "budget": {"parameters": 0.7}, **options}, *training], 512)

        table.add(f"vit-{name}", title, FASHION_VIT, recipe, SEEDS if training else (1,))
    return table


TABLES = [
    scope_table("resnet20", "ResNet-20 at half the MACs, no training: top-1, %", "23.0 / 24.8 / - / - (Torch-Pruning)"),
    scope_table("resnet56", "ResNet-56 at half the MACs, no training: top-1, %", "33.9 / 38.9 / - / - (Torch-Pruning)"),
    trained_table(),
    criteria_table(),
    language_table(),
    vit_table(),
]
PAGE = Page("structured", [experiment for table in TABLES for experiment in table.experiments()])


LATENCIES = PAGE.logs / "latency" / "latency.json"
TIMED = [(f"{network}-plain-{column.replace(', ', '-')}", network) for network in NETWORKS for column in SCOPES] + [
    ("gpt-plain-notraining", CHAR_GPT),
    ("gpt-refit-notraining", CHAR_GPT),
    ("vit-plain-top-1", FASHION_VIT),
]


def latency():
    """Each pruned model in turns with its original, one thread."""
    rows = []
    for name, original in TIMED:
        pruned = MODELS / f"{name}-1.safetensors"
        if not pruned.exists():
            continue
        command = [LATHE, "bench", str(pruned), "--against", NETWORKS.get(original, original), "--threads", "1", "--json", "--engine"]
        command += ["--against-arch", f"{original}-cifar10"] if original in NETWORKS else []
        for batch in (1, 32):
            done = subprocess.run([*command, "--batch", str(batch)], capture_output=True, text=True, check=True)
            runs = [run["median_ms"] for run in json.loads(done.stdout)]  # pruned, pruned by the engine, original, original by it
            for engine in (False, True):
                rows.append({"name": name, "batch": batch, "engine": engine, "before_ms": runs[2 + engine], "after_ms": runs[engine]})
    LATENCIES.parent.mkdir(parents=True, exist_ok=True)
    LATENCIES.write_text(json.dumps(rows, indent=1) + "\n")


def costs():
    """What was asked, what was reached, and what the clock says."""
    lines = ["\n## Asked and achieved\n", "| experiment | MACs left | parameters left | bytes |", "| --- | --- | --- | --- |"]
    for experiment in PAGE.experiments:
        logs = PAGE.logs_of(experiment)
        if not logs:
            continue
        macs = statistics.mean(log["after"]["macs"] / log["before"]["macs"] for log in logs)
        parameters = statistics.mean(log["after"]["parameters"] / log["before"]["parameters"] for log in logs)
        lines.append(f"| {experiment.name} | {100 * macs:.1f} % | {100 * parameters:.1f} % | {logs[0]['after']['file_bytes']:,} |")
    return "\n".join(lines) + "\n" if len(lines) > 3 else ""


def latencies():
    if not LATENCIES.exists():
        return ""
    lines = [
        "\n## Latency, one thread, pruned against original in turns\n",
        "| model | batch | interpreter, ms | | engine, ms | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = {(row["name"], row["batch"], row["engine"]): row for row in json.loads(LATENCIES.read_text())}
    for name, batch in dict.fromkeys((name, batch) for name, batch, _ in rows):
        cells = []
        for engine in (False, True):
            row = rows.get((name, batch, engine))
            if row is None:
                cells += ["", ""]
                continue
            ratio = row["before_ms"] / row["after_ms"]
            cells += [f"{row['before_ms']:.2f} -> {row['after_ms']:.2f}", f"{ratio:.2f} x" + (", not faster" if ratio < 1.05 else "")]
        lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write():
    PAGE.write("".join(table.text(PAGE) for table in TABLES) + latencies() + costs())


if __name__ == "__main__":
    if sys.argv[1:] == ["latency"]:
        latency()
    else:
        PAGE.main(__doc__, write)
