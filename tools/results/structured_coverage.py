#!/usr/bin/env python3
"""Writes docs/results/structured-coverage.md: which networks Lathe and Torch-Pruning shrink, and how long they take for it.

usage: $(tests/interop/setup | tail -n 1)/bin/python tools/results/structured_coverage.py BUILD [--rounds N] [--speed-only]

BUILD is a folder like build/dev with everything built. The networks are those of tests/interop in inference mode; the first run exports
them. About a quarter of an hour. `--speed-only` prints the table of times and writes nothing.
"""

import argparse
import copy
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/interop"))
PAGE = ROOT / "docs/results/structured-coverage.md"
TIMED = ("lenet", "unet", "resnet18", "resnet50", "vgg11_bn", "mobilenet_v2", "efficientnet_b0", "googlenet", "convnext", "densenet121")
TOLERANCE = 3e-4  # that of tests/interop/channels_test.cpp

HEAD = """# Results: coupled channels, coverage and speed

Written by `tools/results/structured_coverage.py`, which says how to run it; `tests/interop/test_torch_pruning.py` holds the comparison.
The other side is Torch-Pruning 1.6.1, which is told which layers make the outputs and how many heads `nn.MultiheadAttention` has. The
networks are those of `tests/interop` (many are narrowed; the graphs are those of the full ones), in inference mode.
"""

COVERAGE = """
## Coverage

Groups are sets of dimensions of tensors that lose channels together. *Works* says of Lathe that a network without 40 % of each group's
channels computes what the zeroed one computes, up to {tolerance:g} of the largest output; where a statistic over channels is taken, it is
that over the channels that are left (`exported_channels_test`). Of Torch-Pruning it says less: that half of each group's channels was
removed, and that the network then runs and has outputs of the old sizes.

Of {count} networks, {ours} work with Lathe and {theirs} with Torch-Pruning; {same} have the same groups in both.

| network | groups, Lathe | groups, Torch-Pruning | Lathe works | Torch-Pruning works | why the groups differ |
| --- | --- | --- | --- | --- | --- |
"""

SPEED = """
## Speed

Analysis and removal of half of each group's channels, one thread, milliseconds of processor time: median of {rounds} rounds in turns.
Taken at a load of {load:.1f} on {cores} cores.

| network | Lathe | Torch-Pruning | ratio |
| --- | --- | --- | --- |
"""


def law_of(build):
    """What the test of removal prints: {network: (removable units, worst error)}."""
    program = build / "tests/interop/exported_channels_test"
    lines = subprocess.run([program], capture_output=True, text=True, check=False).stdout.splitlines()
    rows = {}
    for line in lines:
        cells = line.split()
        if len(cells) == 10 and cells[1].isdigit():
            rows[cells[0]] = (int(cells[3]), max(float(cells[5]), float(cells[6])))
    return rows


def coverage(build):
    import test_torch_pruning as both
    import torch_pruning_driver as other
    from channel_differences import DIFFERENCES

    law, lines, counts = law_of(build), [], {"ours": 0, "theirs": 0, "same": 0}
    for name, case in both.cases().items():
        ours, theirs = both.our_groups(name), both.their_groups(case)
        units, error = law.get(name, (0, float("inf")))
        works = "nothing to remove" if units == 0 and name in law else "yes" if error <= TOLERANCE else "no"
        outcome = other.try_pruning(case.build(), case.example(0))
        counts["ours"] += works == "yes"
        counts["theirs"] += not outcome.problem
        counts["same"] += ours == theirs
        problem = (outcome.problem or "yes").replace("|", "\\|")
        lines.append(f"| {name} | {len(ours)} | {'' if theirs is None else len(theirs)} | {works} | {problem} | {DIFFERENCES.get(name, '')} |")
        print(lines[-1], file=sys.stderr)
    return COVERAGE.format(tolerance=TOLERANCE, count=len(lines), **counts) + "\n".join(lines) + "\n"


def lathe_ms(build, file):
    command = [build / "tests/bench/channels_bench", "--benchmark_filter=/find_and_cut$", "--benchmark_min_time=0.2",
               "--benchmark_format=json", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["benchmarks"][0]["cpu_time"]


def torch_pruning_ms(case):
    import torch_pruning_driver as other

    model, inputs = copy.deepcopy(case.build()).eval(), case.example(0)
    start = time.process_time()
    other.prune_half(model, inputs)
    return 1000 * (time.process_time() - start)


def speed(build, rounds):
    import conftest
    import test_torch_pruning as both

    cases, lines = both.cases(), []
    for name in TIMED:
        pairs = [(lathe_ms(build, conftest.MODELS / f"{name}.pt2"), torch_pruning_ms(cases[name])) for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs))
        lines.append(f"| {name} | {ours:.2f} | {theirs:.0f} | {theirs / ours:.0f} |")
        print(lines[-1], file=sys.stderr)
    return SPEED.format(rounds=rounds, load=os.getloadavg()[1], cores=os.cpu_count()) + "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speed-only", action="store_true")
    options = parser.parse_args()
    build = options.build.resolve()
    os.environ["LATHE_BIN"] = str(build / "tools/lathe")
    import conftest
    import torch

    os.environ["LATHE_INTEROP_MODELS"] = str(conftest.MODELS)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    failed = [row.name for row in conftest.exported() if row.error]
    if failed:
        sys.exit(f"could not export {', '.join(failed)}")
    times = speed(build, options.rounds)
    if options.speed_only:
        print(times)
    else:
        PAGE.write_text(HEAD + coverage(build) + times)


if __name__ == "__main__":
    main()
