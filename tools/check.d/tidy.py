"""Runs clang-tidy-16 over the project's sources, skipping files that passed unchanged.

A file that passed leaves a stamp named by the hash of what it was checked with: itself, the headers of the project that it includes
(which ninja knows from the last build), the configuration and the compiler's options. A change is then looked at again where it can matter.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
STAMPS = CACHE / "lathe" / "tidy"
# GCC's -fopenmp would need clang's own OpenMP runtime.
TIDY = ["clang-tidy-16", "--quiet", "--extra-arg=-fno-openmp", "--extra-arg=-Wno-unknown-warning-option"]


def tracked(*patterns: str) -> list[str]:
    return subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def headers_by_source(build: pathlib.Path) -> dict[str, list[str]]:
    """The project's files that each compiled source includes, itself first."""
    found, files = {}, []
    listing = subprocess.run(["ninja", "-C", build, "-t", "deps"], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        if not line.startswith("    "):
            files = []
            continue
        path = pathlib.Path(os.path.normpath(build / line.strip()))
        if not path.is_relative_to(ROOT) or path.is_relative_to(build):
            continue
        files.append(str(path.relative_to(ROOT)))
        found[files[0]] = files
    return found


def options_by_source(build: pathlib.Path) -> dict[str, str]:
    """The command that compiles each source, without the place of this clone."""
    commands = json.loads((build / "compile_commands.json").read_text())
    return {os.path.relpath(c["file"], ROOT): c["command"].replace(str(ROOT), "") for c in commands}


def main() -> int:
    build = pathlib.Path(sys.argv[1]).resolve()
    headers, options = headers_by_source(build), options_by_source(build)
    every_header = tracked("*.h")
    digests: dict[str, str] = {}

    def digest(file: str) -> str:
        if file not in digests:
            digests[file] = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()
        return digests[file]

    def stamp_of(source: str) -> pathlib.Path:
        # What this build leaves out is checked by the options of a neighbour, and may include anything.
        files = [source, *sorted(headers.get(source, every_header)), ".clang-tidy"]
        told = "\n".join([*TIDY, options.get(source, ""), *(f"{file} {digest(file)}" for file in files)])
        return STAMPS / hashlib.sha256(told.encode()).hexdigest()

    def check(source: str) -> bool:
        outcome = subprocess.run([*TIDY, "-p", build, source], cwd=ROOT, capture_output=True, text=True)
        if outcome.returncode == 0:
            stamp_of(source).touch()
        else:
            print(outcome.stdout, outcome.stderr, sep="", flush=True)
        return outcome.returncode == 0

    STAMPS.mkdir(parents=True, exist_ok=True)
    sources = [s for s in tracked("compress/*.cpp", "passes/*.cpp", "tools/*.cpp") if not stamp_of(s).exists()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        failed = list(pool.map(check, sources)).count(False)
    print(f"tidy: looked at {len(sources)} changed files", file=sys.stderr)
    if failed:
        print(f"tidy: {failed} files have findings: mend them, or explain one with NOLINT and the reason", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
