"""Training steps of Lathe against eager PyTorch, in turns on one machine, as ratios of medians.

usage: training_against_python.py LATHE [--rounds N] [--threads N]

ResNet-20 at batch 128 with random crops and flips, SGD with momentum: fp32, channels_last, and bf16 with
channels_last. Eager trains in a Python process of its own, Lathe by `lathe apply`; loader and augmentation count on
both sides. CIFAR-10 must have been fetched (tools/fetch_data cifar10).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

SETTINGS = {"fp32": ("fp32", False), "channels_last": ("fp32", True), "bf16": ("bf16", True)}
BATCH, STEPS = 128, 50


def eager(precision, channels_last, threads):
    """Images a second, by the median step."""
    import torch
    import torch.nn.functional as F

    from forward_against_python import ResNet

    torch.set_num_threads(threads)
    network = ResNet((16, 32, 64), 3, False)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, fused=True)
    images = torch.randint(0, 256, (BATCH * STEPS, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (BATCH * STEPS,))
    order = torch.randperm(BATCH * STEPS)

    def batch(step):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        x = F.pad(images[chosen], (4, 4, 4, 4))
        rows, columns = torch.randint(0, 9, (2, BATCH))
        x = x.unfold(2, 32, 1).unfold(3, 32, 1)[torch.arange(BATCH), :, rows, columns]
        x = torch.where((torch.rand(BATCH) < 0.5)[:, None, None, None], x.flip(3), x)
        x = (x.float() / 255 - 0.5) / 0.25
        return (x.contiguous(memory_format=torch.channels_last) if channels_last else x), labels[chosen]

    times = []
    for step in range(STEPS):
        start = time.perf_counter()
        x, y = batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(network(x).float(), y)
        loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return BATCH / statistics.median(times)


def lathe(binary, precision, channels_last, threads, folder):
    """Images a second, over an epoch of as many steps, after one to warm up; and where its time went."""
    log = folder / "log.jsonl"
    recipe = {
        "lathe": 1,
        "seed": 1,
        "data": {"full": {"cifar10": {"split": "train", "augment": ["crop", "flip"]}},
                 "train": {"take": {"from": "full", "count": BATCH * STEPS}}},
        "steps": [{"train": {"epochs": 2, "batch_size": BATCH, "optimizer": {"sgd": {"lr": 0.05}}, "precision": precision,
                             "channels_last": channels_last, "log": str(log)}}],
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    subprocess.run([binary, "apply", folder / "recipe.json", "zoo:resnet20-cifar10", "-o", folder / "out.safetensors",
                    "--threads", str(threads), "--latency-seconds", "0.01"], check=True, capture_output=True)
    last = json.loads(log.read_text().splitlines()[-1])
    return last["samples_per_second"], last["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lathe")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", choices=SETTINGS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.eager:
        return print(eager(*SETTINGS[arguments.eager], arguments.threads))
    print("setting        eager/s  lathe/s  ratio  share of a step: data, forward, backward, optimizer, passes")
    with tempfile.TemporaryDirectory() as folder:
        for name, setting in SETTINGS.items():
            theirs, ours, parts = [], [], []
            for _ in range(arguments.rounds):
                done = subprocess.run([sys.executable, __file__, arguments.lathe, "--eager", name, "--threads", str(arguments.threads)],
                                      check=True, capture_output=True, text=True)
                theirs.append(float(done.stdout))
                speed, seconds = lathe(arguments.lathe, *setting, arguments.threads, pathlib.Path(folder))
                ours.append(speed)
                parts.append(seconds)
            total = sum(sum(one.values()) for one in parts)
            shares = [sum(one[part] for one in parts) / total for part in ("data", "forward", "backward", "optimizer", "passes")]
            a, b = statistics.median(theirs), statistics.median(ours)
            print(f"{name:13}  {a:7.0f}  {b:7.0f}  {b / a:5.2f}  " + ", ".join(f"{share:.1%}" for share in shares))


if __name__ == "__main__":
    main()
