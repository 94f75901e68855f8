"""Runs clang-tidy-16 over the project's sources, skipping files that passed unchanged.

A file that passed leaves a stamp named by the hash of what it was checked with: itself, the headers of the project that it includes
(which ninja knows from the last build), the configuration and the compiler's options. A change is then looked at again where it can matter.

Reading LibTorch's headers, and matching every check against them, is nearly all of the work, so several sources go through clang-tidy
as one: a file that includes them. Where their names collide, the group is halved.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
STAMPS = CACHE / "lathe" / "tidy"


def gcc_headers() -> str:
    return subprocess.run(["g++", "-print-file-name=include"], check=True, capture_output=True, text=True).stdout.strip()


TIDY = ["clang-tidy-16", "--quiet", f"--config-file={ROOT / '.clang-tidy'}"]
# The options are g++'s: -fopenmp would need clang's own OpenMP runtime, and omp.h is among g++'s headers, with an argument of
# __malloc__ that clang does not know.
EXTRA = ["-fno-openmp", "-Wno-unknown-warning-option", "-idirafter", gcc_headers(), "-D__malloc__(...)=__malloc__"]
GROUP = 8  # sources; more collide more often


def tracked(*patterns: str) -> list[str]:
    return subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def headers_by_source(build: pathlib.Path) -> dict[str, list[str]]:
    """The project's files that each compiled source includes, or that those include that are compiled together with it."""

    @functools.cache  # a million lines name few files
    def place_of(listed: str) -> str | None:
        path = pathlib.Path(os.path.normpath(build / listed))
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) and not path.is_relative_to(build) else None

    found: dict[str, list[str]] = {}
    files: list[str] = []
    listing = subprocess.run(["ninja", "-C", build, "-t", "deps"], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        if not line.startswith("    "):
            files = []
        elif (place := place_of(line.strip())) is not None:
            files.append(place)
            if place.endswith(".cpp"):
                found[place] = files
    return found


def options_by_source(build: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """The options that compile each source, without the compiler and the files' names."""
    options = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words, file = shlex.split(entry["command"]), pathlib.Path(entry["file"])
        together = re.findall(r'^#include "(.*)"', file.read_text(), re.M) if file.parent.name == "Unity" else [file]
        for source in together:
            options[os.path.relpath(source, ROOT)] = tuple(words[1 : words.index("-o")])
    return options


def groups_of(sources: list[str], options: dict[str, tuple[str, ...]]) -> list[list[str]]:
    """Neighbours with the same options together."""
    groups: list[list[str]] = []
    for source in sorted(sources, key=lambda s: (options[s], s)):
        if not groups or len(groups[-1]) == GROUP or options[groups[-1][0]] != options[source]:
            groups.append([])
        groups[-1].append(source)
    return groups


def findings(group: list[str], options: tuple[str, ...]) -> str:
    """What clang-tidy says of the group; empty where all is well."""
    with tempfile.NamedTemporaryFile("w", suffix=".cpp") as together:
        together.writelines(f'#include "{ROOT / source}"\n' for source in group)
        together.flush()
        outcome = subprocess.run([*TIDY, together.name, "--", *options, *EXTRA], cwd=ROOT, capture_output=True, text=True)
    if outcome.returncode == 0:
        return ""
    if len(group) > 1 and "clang-diagnostic-error" in outcome.stdout:
        middle = len(group) // 2
        return findings(group[:middle], options) + findings(group[middle:], options)
    return outcome.stdout + outcome.stderr


def main() -> int:
    build = pathlib.Path(sys.argv[1]).resolve()
    headers, options = headers_by_source(build), options_by_source(build)
    digests: dict[str, str] = {}

    def digest(file: str) -> str:
        if file not in digests:
            digests[file] = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
        return digests[file]

    def stamp_of(source: str) -> pathlib.Path:
        # Without the place of this clone.
        told = [" ".join([*TIDY, *options[source], *EXTRA]).replace(str(ROOT), "")]
        told += [f"{file} {digest(file)}" for file in [source, *sorted(headers[source]), ".clang-tidy"]]
        return STAMPS / hashlib.sha256("\n".join(told).encode()).hexdigest()

    def check(group: list[str]) -> str:
        found = findings(group, options[group[0]])
        for source in group if not found else []:
            stamp_of(source).touch()
        print(found, end="", flush=True)
        return found

    STAMPS.mkdir(parents=True, exist_ok=True)
    compiled = [source for source in tracked("compress/*.cpp", "passes/*.cpp", "tools/*.cpp") if source in headers]
    changed = [source for source in compiled if not stamp_of(source).exists()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = any(list(pool.map(check, groups_of(changed, options))))
    print(f"tidy: looked at {len(changed)} of {len(compiled)} files, the others passed before", file=sys.stderr)
    if failed:
        print("tidy: mend the findings above, or explain one with NOLINT and the reason", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
