"""Checks what README.md and docs/ say about things that can be looked up: links, options, lists.

- every relative link leads to a file, and its #fragment to a heading of it;
- docs/command-line.md has a section for each subcommand of the binary, which names exactly its options;
- Every path of the tree in backquotes exists.
"""

import argparse
import pathlib
import re
import subprocess
import sys

from blocks import blocks_of

# Options that docs/command-line.md explains once, at its beginning.
EVERYWHERE = {"--help"}


def fragment_of(heading):
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def fragments_of(page):
    return {fragment_of(line.lstrip("#")) for line in page.read_text().splitlines() if re.match(r"#+ ", line)}


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def link_problems(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"\w+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{page}: the link {target} leads nowhere"
        elif fragment and fragment not in fragments_of(file):
            yield f"{page}: {file.name} has no heading #{fragment}"


def path_problems(page, source):
    # docs/writing-a-pass.md makes files of its own: those of its blocks and the page of their pass.
    made = [block.mark.removeprefix("file: ") for block in blocks_of(page) if block.mark.startswith("file: ")]
    made += [path.replace("recipes/", "docs/passes/").replace(".json", ".md") for path in made]
    rooms = "compress|passes|tools|tests|docs|recipes"
    for path in re.findall(rf"`((?:{rooms})/[\w./-]+)`", without_code(page.read_text())):
        if path not in made and not list(source.glob(path.rstrip(".") + "*")):
            yield f"{page}: there is no {path}"


def option_problems(page, lathe):
    sections = dict(re.findall(r"^## `lathe (\w+)[^\n]*\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S))

    def help_of(*names):
        return subprocess.run([lathe, *names, "--help"], check=True, capture_output=True, text=True).stdout

    commands = re.findall(r"^  (\w+)  ", help_of().split("Subcommands:")[1].split("\n\n")[0], re.M)
    if len(commands) < 5:
        yield f"{lathe} --help lists the subcommands {commands}"
    for command in commands:
        if command not in sections:
            yield f"{page}: no section for lathe {command}"
            continue
        options = set(re.findall(r"^  (?:-\w, ?)?(--[a-z][a-z-]+)", help_of(command), re.M))
        said = set(re.findall(r"`(?:-\w, )?(--[a-z][a-z-]+)", without_code(sections[command]))) | EVERYWHERE
        title = re.search(rf"^## `lathe {command}([^\n]*)", page.read_text(), re.M)[1]
        said |= set(re.findall(r"--[a-z][a-z-]+", title))
        for option in sorted(options - said):
            yield f"{page}: lathe {command} has {option}, which its section does not name"
        for option in sorted(said - options - EVERYWHERE):
            yield f"{page}: the section of lathe {command} names {option}, which it does not have"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lathe", type=pathlib.Path, required=True)
    parser.add_argument("--source", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    readme = arguments.source / "README.md"
    problems = []
    for page in [readme, *sorted((arguments.source / "docs").rglob("*.md"))]:
        problems += link_problems(page)
        problems += path_problems(page, arguments.source)
    problems += option_problems(arguments.source / "docs/command-line.md", arguments.lathe)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
