"""Forward passes of Lathe against eager PyTorch, in turns on one machine, as ratios of medians.

usage: forward_against_python.py LATHE [--rounds N] [--seconds S] [--threads N ...] [--json]

Each network is written as a plain module, exported to .pt2, and run by both: eager by a Python process of its
own, Lathe by `lathe bench`. The two take turns, so a change of the machine's speed meets both alike.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class BasicBlock(nn.Module):
    def __init__(self, before, after, stride, option_a):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.pad = (after - before) // 2 if option_a and before != after else 0
        self.down = None
        if not option_a and (stride != 1 or before != after):
            self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        elif self.down is not None:
            x = self.down(x)
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self, widths, blocks, imagenet):
        super().__init__()
        self.imagenet = imagenet
        self.conv1 = nn.Conv2d(3, widths[0], 7 if imagenet else 3, 2 if imagenet else 1, 3 if imagenet else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        layers, before = [], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(BasicBlock(before, width, 2 if stage and not block else 1, not imagenet))
                before = width
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(before, 1000 if imagenet else 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.imagenet:
            x = F.max_pool2d(x, 3, 2, 1)
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(self.layers(x), 1), 1))


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        split = lambda t: t.view(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(self.query(x)), split(self.key(x)), split(self.value(x)))
        x = self.norm1(x + self.out(y.transpose(1, 2).reshape(x.shape)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(nn.Module):
    """BERT base in shape: 12 layers, width 768, 12 heads, a sequence of 128."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(30522, 768), nn.Embedding(512, 768)
        self.norm = nn.LayerNorm(768, eps=1e-12)
        self.layers = nn.Sequential(*(EncoderLayer(768, 12, 3072) for _ in range(12)))

    def forward(self, ids):
        positions = torch.arange(ids.shape[1])
        return self.layers(self.norm(self.words(ids) + self.positions(positions)))


NETWORKS = {
    "resnet20": (lambda: ResNet((16, 32, 64), 3, False), lambda n: torch.zeros(n, 3, 32, 32)),
    "resnet18": (lambda: ResNet((64, 128, 256, 512), 2, True), lambda n: torch.zeros(n, 3, 224, 224)),
    "bert": (Encoder, lambda n: torch.zeros(n, 128, dtype=torch.long)),
}


def timings(run, seconds):
    """Milliseconds of single runs within about `seconds`."""
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - before))
    return times


def worker(name, batch, threads):
    """Answers each line with the timings of that many seconds of eager runs."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    module = NETWORKS[name][0]().eval()
    x = NETWORKS[name][1](batch)
    with torch.no_grad():
        timings(lambda: module(x), 0.2)
        for line in sys.stdin:
            print(statistics.median(timings(lambda: module(x), float(line))), flush=True)


def lathe_median(binary, file, batch, threads, seconds):
    command = [binary, "bench", file, "--batch", str(batch), "--threads", str(threads), "--seconds", str(seconds), "--json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]
    return answer["median_ms"]


def export(name, folder):
    file = folder / f"{name}.pt2"
    torch.manual_seed(0)
    module, inputs = NETWORKS[name][0]().eval(), NETWORKS[name][1](2)
    torch.export.save(torch.export.export(module, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},)), file)
    return str(file)


def compare(binary, name, file, batch, threads, rounds, seconds):
    eager, lathe = [], []
    with subprocess.Popen([sys.executable, __file__, "--worker", name, str(batch), str(threads)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(rounds):
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
            eager.append(float(process.stdout.readline()))
            lathe.append(lathe_median(binary, file, batch, threads, seconds))
        process.stdin.close()
    eager_ms, lathe_ms = statistics.median(eager), statistics.median(lathe)
    return {"network": name, "batch": batch, "threads": threads, "eager_ms": eager_ms, "lathe_ms": lathe_ms,
            "ratio": eager_ms / lathe_ms, "ratios": [a / b for a, b in zip(eager, lathe)]}


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        return worker(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lathe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            file = export(name, pathlib.Path(folder))
            for threads in options.threads:
                for batch in (1, 32):
                    row = compare(options.lathe, name, file, batch, threads, options.rounds, options.seconds)
                    rows.append(row)
                    spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
                    if not options.json:
                        print(f"{name:10} batch {batch:3} threads {threads}: eager {row['eager_ms']:9.2f} ms, lathe "
                              f"{row['lathe_ms']:9.2f} ms, lathe is {row['ratio']:.2f} times as fast ({spread})", flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
