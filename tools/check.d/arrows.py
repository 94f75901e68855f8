"""Checks that includes follow the arrows of docs/architecture.md: who may know whom."""

import pathlib
import re
import subprocess
import sys

# Room -> rooms that it may include, besides itself and the ground (errors, JSON names).
GROUND = {"compress/error.h", "compress/json.h"}
GRAPH = {"graph"}
MODEL = GRAPH | {"model", "weight"}
ALLOWED = {
    "graph": {"model"},  # the interpreter, the text form and shapes run on a model
    "model": GRAPH,
    "weight": GRAPH | {"model", "options"},
    "io": MODEL,
    "record": MODEL,
    "zoo": MODEL | {"io"},  # loads a state_dict into an architecture
    "data": MODEL | {"io", "options"},
    "engine": MODEL | {"io"},  # gives pages of mapped weights back
    "budget": MODEL | {"options", "io", "engine"},  # the same; times plans
    "calibrate": MODEL | {"options"},
    "options": GRAPH,  # selectors know kinds of operators
    "pass": MODEL | {"options", "calibrate", "budget"},
    "evaluate": MODEL | {"options", "data"},
    "train": MODEL | {"options", "data", "evaluate", "pass", "io", "files"},  # checkpoints, cached logits
    "files": MODEL | {"io", "zoo"},
    "report": MODEL | {"options", "budget", "pass", "evaluate"},
    "stream": MODEL | {"options", "pass", "files", "io", "budget"},
    "passes": MODEL | {"options", "calibrate", "budget", "pass", "train"},
}
# Files that stand directly in compress/, by room.
TOP_LEVEL = {
    "model": "model", "module": "record", "weight": "weight", "encoding": "weight", "encoding_bits": "weight",
    "evaluate": "evaluate", "files": "files", "weights_file": "files", "stream": "stream", "version": None, "multiversion": None, "allocator": None,
    "run_state": "pass", "options": "options", "selector": "options", "pass": "pass", "pass_context": "pass", "pass_manager": "pass",
    "recipe": "pass", "registry": "pass", "schema": "pass", "error": None, "json": None,
}


def room_of(path):
    parts = path.split("/")
    if parts[0] == "passes":
        return "passes"
    if parts[0] != "compress":
        return "outside"
    if len(parts) > 2:
        return parts[1]
    stem = parts[1].split(".")[0]
    for name in (stem, stem.rsplit("_", 1)[0], stem.split("_")[0]):
        if name in TOP_LEVEL:
            return TOP_LEVEL[name]
    return "unknown"


def main(root):
    files = subprocess.run(["git", "-C", root, "ls-files", "compress", "passes"], check=True, capture_output=True, text=True)
    problems = []
    for name in files.stdout.split():
        if not name.endswith((".h", ".cpp")):
            continue
        room = room_of(name)
        if room == "unknown":
            problems.append(f"{name}: belongs to no room; add it to tools/check.d/arrows.py")
            continue
        text = pathlib.Path(root, name).read_text()
        for include in re.findall(r'^#include "([^"]+)"', text, re.M):
            target = room_of(include)
            if include in GROUND or target is None or target == room:
                continue
            if room is None or target not in ALLOWED.get(room, set()):
                problems.append(f"{name}: the room `{room}` may not include {include} (room `{target}`)")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
