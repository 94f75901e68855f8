"""Checks the house rules that a machine can check: file length, purpose comment, no loose ends."""

import pathlib
import re
import subprocess
import sys

MOST_LINES = 500


def problems_of(name, text):
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        yield f"{name}: {len(lines)} lines, at most {MOST_LINES}: split it by idea"
    if not lines or not lines[0].startswith("//"):
        yield f"{name}:1: opens with no sentence of purpose"
    if name.endswith(".h") and "#pragma once" not in text:
        yield f"{name}: has no #pragma once"
    in_text = False  # inside a raw string, which holds another language
    for number, line in enumerate(lines, 1):
        if in_text:
            in_text = ')"' not in line
            continue
        in_text = re.search(r'R"\w*\((?!.*\)\w*")', line) is not None
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield f"{name}:{number}: a loose end"
        if len(line) > 100:
            yield f"{name}:{number}: {len(line)} columns, at most 100"


def main(root):
    files = subprocess.run(["git", "-C", root, "ls-files"], check=True, capture_output=True, text=True).stdout.split()
    problems = []
    for name in files:
        path = pathlib.Path(root, name)
        if path.suffix in (".h", ".cpp") and path.exists():
            problems += problems_of(name, path.read_text())
        if path.exists() and path.stat().st_size > 4_000_000:
            problems.append(f"{name}: {path.stat().st_size} bytes, at most 4 MB")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
