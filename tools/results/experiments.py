"""What the scripts of result pages share: chains of `lathe apply` runs, their logs, the table rows made from them.

A log is docs/results/<page>/<name>-<seed>.json: the commands' settings, the figures before and after from the run's report.json,
and the epochs of its last train step. Models go to build/results.
"""

import fnmatch
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "build/results"
LATHE = os.environ.get("LATHE_BIN", str(ROOT / "build/release/tools/lathe"))
THREADS = os.environ.get("LATHE_THREADS")
RESNET20 = str(ROOT / "recipes/checkpoints/resnet20-cifar10.safetensors")
SHARED = ROOT / "../shared"
NETWORKS = {
    "resnet20": os.environ.get("LATHE_RESNET20", str(SHARED / "checkpoints/resnet20-cifar10.th")),
    "resnet56": os.environ.get("LATHE_RESNET56", str(SHARED / "checkpoints/resnet56-cifar10.th")),
}
FASHION_VIT = str(ROOT / "recipes/checkpoints/vit-fashion-mnist.safetensors")
CHAR_GPT = str(ROOT / "recipes/checkpoints/char-gpt.safetensors")
TEXT = os.environ.get("LATHE_TEXT", str(SHARED / "text/tinyshakespeare.txt"))


class Experiment:
    """`recipe` is the name of a file in recipes/, or a recipe as a dict. `source` is a model, or the name of the experiment whose
    result is the model. `settings` are those of --set; `variables.*` with a path in it are not logged."""

    def __init__(self, name, title, recipe, source, published="", seeds=(1,), settings=(), schedule="", architecture=None):
        self.name, self.title, self.recipe, self.source = name, title, recipe, source
        self.published, self.seeds, self.settings, self.schedule = published, seeds, list(settings), schedule
        self.architecture = architecture


class Page:
    """One page of results: docs/results/<name>.md from docs/results/<name>/ and tools/results/<name>.head.md."""

    def __init__(self, name, experiments):
        self.name = name
        self.experiments = experiments
        self.logs = ROOT / "docs/results" / name
        self.by_name = {experiment.name: experiment for experiment in experiments}

    def log_of(self, experiment, seed):
        return self.logs / f"{experiment.name}-{seed}.json"

    def logs_of(self, experiment):
        files = [self.log_of(experiment, seed) for seed in experiment.seeds]
        return [json.loads(file.read_text()) for file in files if file.exists()]

    def source_of(self, experiment, seed):
        if experiment.source in self.by_name:
            return str(MODELS / f"{experiment.source}-{seed}.safetensors")
        if experiment.source.startswith("zoo:"):
            return f"{experiment.source}{{seed={seed}}}"
        return experiment.source

    def run(self, experiment, seed):
        output = MODELS / f"{experiment.name}-{seed}.safetensors"
        report = output.with_suffix("")
        epochs = report / "epochs.jsonl"
        report.mkdir(parents=True, exist_ok=True)
        recipe, file = experiment.recipe, f"recipes/{experiment.recipe}.json"
        if isinstance(recipe, dict):
            file = str(report / "recipe.json")
            pathlib.Path(file).write_text(json.dumps(recipe, indent=1))
        else:
            recipe = json.loads((ROOT / file).read_text())
        settings = [f"seed={seed}", *experiment.settings]
        last = max((i for i, step in enumerate(recipe["steps"]) if "train" in step), default=None)
        if last is not None:
            settings.append(f"steps.{last}.train.log={epochs}")
        command = [LATHE, "apply", file, self.source_of(experiment, seed), "-o", str(output), "--report", str(report)]
        command += ["--arch", experiment.architecture] if experiment.architecture else []
        command += ["--threads", THREADS] if THREADS else []
        for setting in settings:
            command += ["--set", setting]
        subprocess.run(command, cwd=ROOT, check=True)
        told = json.loads((report / "report.json").read_text())
        after = told["after"]
        log = {
            "experiment": experiment.name,
            "seed": seed,
            "recipe": json.loads(json.dumps(experiment.recipe).replace(TEXT, pathlib.Path(TEXT).name)),
            "settings": [setting for setting in settings if not setting.startswith("steps.") and "/" not in setting],
            "threads": told["threads"],
            "seconds": [step["seconds"] for step in told["steps"]],
            "before": {
                "metrics": told["before"]["metrics"],
                "parameters": told["before"]["cost"]["parameters"],
                "macs": told["before"]["cost"]["macs"],
                "latency_ms": told["before"]["latency"]["median_ms"],
            },
            "after": {
                "metrics": after["metrics"],
                "file_bytes": after["file_bytes"],
                "parameters": after["cost"]["parameters"],
                "nonzeros": after["cost"]["nonzeros"],
                "macs": after["cost"]["macs"],
                "latency_ms": after["latency"]["median_ms"],
            },
            "epochs": [json.loads(line) for line in epochs.read_text().splitlines()] if epochs.exists() else [],
        }
        self.logs.mkdir(parents=True, exist_ok=True)
        self.log_of(experiment, seed).write_text(json.dumps(log, indent=1) + "\n")

    def missing(self):
        return [experiment.name for experiment in self.experiments if len(self.logs_of(experiment)) < len(experiment.seeds)]

    def write(self, body):
        """Writes the page: its head, `body`, and what has not run."""
        text = (ROOT / f"tools/results/{self.name}.head.md").read_text().rstrip() + "\n" + body
        missing = self.missing()
        if len(missing) > 12:
            text += f"\nNot run yet: {len(missing)} of {len(self.experiments)} experiments; `tools/results/{self.name}.py list` names them.\n"
        elif missing:
            text += f"\nNot run yet, in whole or in part: {', '.join(missing)}.\n"
        (ROOT / f"docs/results/{self.name}.md").write_text(text)

    def main(self, usage, write):
        if len(sys.argv) < 2 or sys.argv[1] not in ("run", "write", "list"):
            sys.exit(usage)
        if sys.argv[1] == "write":
            return write()
        wanted = sys.argv[2:] or ["*"]
        for experiment in self.experiments:
            if not any(fnmatch.fnmatch(experiment.name, glob) for glob in wanted):
                continue
            for seed in experiment.seeds:
                done = self.log_of(experiment, seed).exists()
                if sys.argv[1] == "list":
                    print(f"{experiment.name} seed {seed}: {'done' if done else 'to run'}")
                elif not done:
                    self.run(experiment, seed)


def cifar(steps, count, metrics=("top1",)):
    """Steps on CIFAR-10; calibration takes the first `count` training images as they are."""
    return images("cifar10", {"normalize": "imagenet"}, ["crop", "flip"], steps, count, metrics)


def fashion(steps, count):
    """The same on Fashion-MNIST."""
    return images("fashion-mnist", {}, [{"crop": {"pad": 2}}, "flip"], steps, count)


def images(dataset, options, augment, steps, count, metrics=("top1",)):
    return {
        "lathe": 1,
        "data": {
            "train": {dataset: {"split": "train", **options, "augment": augment}},
            "calibration": {"take": {"from": "train", "count": count, "augment": False}},
            "test": {dataset: {"split": "test", **options}},
        },
        "steps": steps,
        "evaluate": {"data": "test", "metrics": list(metrics)},
    }


def text(steps):
    return {
        "lathe": 1,
        "data": {
            "train": {"text": {"path": TEXT, "length": 128, "end": 0.9}},
            "calibration": {"take": {"from": "train", "count": 256}},
            "test": {"text": {"path": TEXT, "length": 128, "begin": 0.9}},
        },
        "steps": steps,
        "evaluate": {"data": "test", "metrics": ["perplexity"], "batch_size": 32},
    }


class Table:
    """Rows of methods, columns of settings; a cell is an experiment and shows `metric`, the mean and range of its seeds, and
    behind a slash the mean of `beside`, a second metric."""

    def __init__(self, title, columns, metric="top1", beside=None):
        self.title, self.columns, self.metric, self.beside, self.rows = title, columns, metric, beside, []

    def add(self, name, title, model, recipe_of, seeds=(1,), reference=""):
        """`recipe_of(column)` is the recipe of a column, or None where the method has no such setting."""
        cells = {}
        for column in self.columns:
            recipe = recipe_of(column)
            if recipe is not None:
                key = column.lower().replace(" ", "").replace("%", "").replace(":", "").replace(",", "-")
                source, architecture = (NETWORKS[model], f"{model}-cifar10") if model in NETWORKS else (model, None)
                cells[column] = Experiment(f"{name}-{key}", title, recipe, source, seeds=seeds, architecture=architecture)
        self.rows.append((title, cells, reference))

    def experiments(self):
        return [cell for _, cells, _ in self.rows for cell in cells.values()]

    def text(self, page):
        lines = [f"\n## {self.title}\n", f"| method | {' | '.join(self.columns)} | elsewhere |", "| --- " * (len(self.columns) + 2) + "|"]
        for title, cells, reference in self.rows:
            if not any(page.logs_of(cell) for cell in cells.values()):
                continue
            line = [title]
            for column in self.columns:
                logs = page.logs_of(cells[column]) if column in cells else []
                line.append(self.cell([log["after"]["metrics"] for log in logs]))
            lines.append(f"| {' | '.join(line)} | {reference} |")
        return "\n".join(lines) + "\n" if len(lines) > 3 else ""

    def cell(self, found):
        if not found:
            return ""
        figures = [metrics[self.metric] for metrics in found]
        spread = f" ({min(figures):.2f} to {max(figures):.2f})" if len(figures) > 1 else ""
        second = [metrics[self.beside] for metrics in found if self.beside in metrics]
        return f"{statistics.mean(figures):.2f}{spread}" + (f" / {statistics.mean(second):.4f}" if second else "")
