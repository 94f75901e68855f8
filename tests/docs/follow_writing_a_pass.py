"""Does what docs/writing-a-pass.md says, to the letter, in a copy of the source tree.

Blocks marked `file: PATH` are written there, those marked `after: PATH: LINE` are put behind that line, and the
commands of the block marked `follow` are run one by one; the last one's output must be the block marked
`follow output`. Only compress/ is not built again: it comes from the build that runs the test.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

from blocks import blocks_of, same_output

HERE = pathlib.Path(__file__).resolve().parent
COPIED = ["CMakeLists.txt", "CMakePresets.json", "compress", "passes", "recipes", "docs", "tests", "tools"]


def fail(message):
    sys.exit(f"follow_writing_a_pass: {message}")


def run(command, tree, environment):
    print(f"$ {command}", flush=True)
    done = subprocess.run(["bash", "-c", command], cwd=tree, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        fail(f"`{command}` ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def copy_tree(source, tree):
    """Copies what differs, so that the build of an earlier run is of use."""
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, tree / name, dirs_exist_ok=True, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
        else:
            shutil.copy2(source / name, tree / name)


def write_blocks(blocks, tree):
    for block in blocks:
        kind, _, rest = block.mark.partition(": ")
        if kind == "file":
            path = tree / rest
            if path.exists():
                fail(f"{block.page}:{block.line}: {rest} is in the tree already; the page needs another example")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif kind == "after":
            name, _, line = rest.partition(": ")
            text = (tree / name).read_text()
            if text.count(line + "\n") != 1:
                fail(f"{block.page}:{block.line}: `{line}` is not one line of {name}")
            (tree / name).write_text(text.replace(line + "\n", line + "\n" + block.text))


def main():
    parser = argparse.ArgumentParser()
    for name in ("source", "build", "work", "torch"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--type", default="Release")
    parser.add_argument("--unity", default="", help="that of the build, so that ccache has what it compiled")
    parser.add_argument("--batch", default="")
    arguments = parser.parse_args()
    blocks = list(blocks_of(arguments.source / "docs/writing-a-pass.md"))
    commands = [block for block in blocks if block.mark == "follow"]
    outputs = [block for block in blocks if block.mark == "follow output"]
    if len(commands) != 1 or len(outputs) != 1 or len(blocks) < 6:
        fail("the page lacks its marked blocks")

    tree = arguments.work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    copy_tree(arguments.source, tree)
    write_blocks(blocks, tree)
    environment = {name: value for name, value in os.environ.items() if name != "LATHE_BIN"}
    if shutil.which("ccache"):
        environment["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
    if shutil.which("clang-format-16"):
        files = [block.mark.removeprefix("file: ") for block in blocks if block.language == "cpp"]
        shutil.copy2(arguments.source / ".clang-format", tree)
        run("clang-format-16 --dry-run -Werror " + " ".join(files), tree, environment)
    run(f"cmake --preset dev -DLATHE_BENCHMARKS=OFF -DLATHE_PREBUILT={arguments.build}"
        f" -DLATHE_TORCH_ROOT={arguments.torch} -DCMAKE_BUILD_TYPE={arguments.type}"
        f" -DCMAKE_UNITY_BUILD={arguments.unity or 'OFF'} -DCMAKE_UNITY_BUILD_BATCH_SIZE={arguments.batch or 8}"
        f" -DCMAKE_PROJECT_lathe_INCLUDE={HERE / 'prebuilt_compress.cmake'}", tree, environment)
    said = ""
    for command in commands[0].text.splitlines():
        said = run(command, tree, environment)
    if not same_output(outputs[0].text, said):
        fail(f"the last command printed:\n{said}\nthe page says:\n{outputs[0].text}")


if __name__ == "__main__":
    main()
