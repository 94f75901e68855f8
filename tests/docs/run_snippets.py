"""Runs the commands that README.md and docs/ show.

A `sh` block marked `<!-- test -->` runs with bash, `lathe` on the PATH, in a scratch folder that the blocks of a
page share; it must succeed. A block marked `<!-- output -->` is what the block before it must have printed to
standard output, where a line `...` stands for any lines. A block marked `<!-- write: NAME -->` is written to the
scratch folder.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

from blocks import blocks_of, same_output


def run_page(page, environment):
    """Returns the number of commands that ran and a list of what went wrong."""
    ran, problems, said = 0, [], None
    with tempfile.TemporaryDirectory() as scratch:
        for block in blocks_of(page):
            place = f"{page}:{block.line}"
            if block.mark.startswith("write: "):
                path = pathlib.Path(scratch, block.mark.removeprefix("write: "))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.mark == "test" and block.language == "sh":
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=scratch, env=environment,
                                      text=True, capture_output=True)
                ran += 1
                said = done.stdout
                if done.returncode != 0:
                    problems.append(f"{place}: exit code {done.returncode}\n{block.text}{done.stdout}{done.stderr}")
                    said = None
            elif block.mark == "output":
                if said is not None and not same_output(block.text, said):
                    problems.append(f"{place}: the page says\n{block.text}but the command printed\n{said}")
            elif block.mark in ("test", "follow", "follow output") or block.mark.startswith(("file: ", "after: ")):
                pass  # C++: snippets_program.py; the rest: follow_writing_a_pass.py
            else:
                problems.append(f"{place}: unknown mark `{block.mark}`")
    return ran, problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lathe", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    environment = dict(os.environ, PATH=f"{arguments.lathe.resolve().parent}:{os.environ['PATH']}",
                       LATHE_SOURCE=str(arguments.source), OMP_WAIT_POLICY="passive")
    pages = [arguments.source / "README.md", *sorted((arguments.source / "docs").glob("*.md"))]
    total, problems = 0, []
    for page in pages:
        ran, wrong = run_page(page, environment)
        total += ran
        problems += wrong
    if total < 10:
        problems.append(f"only {total} commands were found; are the marks in place?")
    print(f"ran {total} commands of {len(pages)} pages")
    if problems:
        sys.exit("\n\n".join(problems))


if __name__ == "__main__":
    main()
