#!/usr/bin/env python3
"""Exports the networks of `models/` with torch.export, with inputs and eager outputs beside them.

For a case NAME the folder gets
  NAME.pt2                the program
  NAME.0.in.safetensors   inputs in.0, in.1, ... at the first size; NAME.1.in at the second
  NAME.0.out.safetensors  eager's flattened outputs out.0, out.1, ...; NAME.1.out at the second size
  NAME.0.state.safetensors  training mode only: the buffers after the forward
  NAME.json               what the judges need to know, and the stamp that says whether the files are current
A second run exports only what changed.
"""

import argparse
import concurrent.futures
import copy
import hashlib
import itertools
import json
import logging
import os
import pathlib
import sys
import time
import traceback
import typing
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402  (after the environment that its users read)
from safetensors.torch import save_file  # noqa: E402

import models  # noqa: E402


class Row(typing.NamedTuple):
    """What became of one case."""

    name: str
    seconds: float
    error: str


def stamp_of(family: str) -> str:
    """Changes whenever a family's files would."""
    requirements = (pathlib.Path(__file__).parent / "requirements.txt").read_bytes()
    parts = [pathlib.Path(__file__).read_bytes(), requirements, models.source_of(family), torch.__version__.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def save_tensors(tensors: dict[str, torch.Tensor], path: pathlib.Path) -> None:
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)


def run_eager(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]):
    """Outputs and buffers of one forward on a copy, so that each run starts from the same buffers."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        result = model(*[tensor.clone() for tensor in inputs])
    outputs = torch.utils._pytree.tree_leaves(result)
    return [torch.as_tensor(output) for output in outputs if output is not None], dict(model.named_buffers())


def export(case: models.Case, stamp: str, folder: pathlib.Path) -> None:
    model = case.build()
    sizes = 2 if case.dynamic else 1
    for which in range(sizes):
        inputs = case.example(which)
        outputs, state = run_eager(model, inputs)
        if not all(bool(torch.isfinite(torch.view_as_real(o) if o.is_complex() else o).all()) for o in outputs):
            raise ValueError("eager outputs are not finite: no test of anything")
        save_tensors({f"in.{i}": tensor for i, tensor in enumerate(inputs)}, folder / f"{case.name}.{which}.in.safetensors")
        save_tensors({f"out.{i}": tensor for i, tensor in enumerate(outputs)}, folder / f"{case.name}.{which}.out.safetensors")
        if case.train and which == 0:
            save_tensors(state, folder / f"{case.name}.0.state.safetensors")
    program = torch.export.export(model, case.example(0), dynamic_shapes=case.dynamic_shapes(model), strict=False)
    torch.export.save(program, folder / f"{case.name}.pt2")
    facts = {"name": case.name, "train": case.train, "fixed_batch": case.fixed_batch, "sizes": sizes, "retrain": case.retrain, "stamp": stamp}
    (folder / f"{case.name}.json").write_text(json.dumps(facts, indent=1))


def current(name: str, stamp: str, folder: pathlib.Path) -> bool:
    try:
        return json.loads((folder / f"{name}.json").read_text())["stamp"] == stamp
    except (OSError, ValueError, KeyError):
        return False


def export_family(family: str, part: int, parts: int, folder: pathlib.Path, only: str) -> list[Row]:
    """Exports what is not current of every `parts`-th case of a family."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    stamp, rows = stamp_of(family), []
    for case in models.family(family)[part::parts]:
        if only not in case.name:
            continue
        start, error = time.monotonic(), ""
        if not current(case.name, stamp, folder):
            (folder / f"{case.name}.json").unlink(missing_ok=True)
            try:
                export(case, stamp, folder)
            except Exception:
                error = traceback.format_exc()
        rows.append(Row(case.name, time.monotonic() - start, error))
    return rows


def export_all(folder: pathlib.Path, only: str = "", jobs: int = 2) -> list[Row]:
    """Exports what is not current; the result has one row a case, in a fixed order.

    Importing the zoos takes seconds, so a family gets two processes, and none when its index says that all its files are current.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamps = {family: stamp_of(family) for family in models.FAMILIES}
    futures, rows = {}, []
    with concurrent.futures.ProcessPoolExecutor(jobs, torch.multiprocessing.get_context("spawn")) as pool:
        for family, stamp in stamps.items():
            if index_of(family, stamp, folder) is None:
                futures[family] = [pool.submit(export_family, family, part, 2, folder, only) for part in range(2)]
    for family, stamp in stamps.items():
        if family not in futures:
            rows += [Row(name, 0.0, "") for name in index_of(family, stamp, folder) if only in name]
            continue
        halves = [future.result() for future in futures[family]]
        done = [row for pair in itertools.zip_longest(*halves) for row in pair if row]
        rows += done
        if not only and not any(row.error for row in done):
            index = {"stamp": stamp, "names": [row.name for row in done]}
            (folder / f"index.{family}.json").write_text(json.dumps(index))
    return rows


def index_of(family: str, stamp: str, folder: pathlib.Path) -> list[str] | None:
    """The names of a family's cases where all their files are current."""
    try:
        index = json.loads((folder / f"index.{family}.json").read_text())
    except (OSError, ValueError):
        return None
    good = index["stamp"] == stamp and all(current(name, stamp, folder) for name in index["names"])
    return index["names"] if good else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    options = parser.parse_args()
    start = time.monotonic()
    rows = export_all(options.folder, options.only, options.jobs)
    failed = [row for row in rows if row.error]
    for row in failed:
        print(f"{row.name}: {row.error}", file=sys.stderr)
    for row in sorted(rows, key=lambda row: -row.seconds)[:10]:
        print(f"{row.seconds:6.1f} s  {row.name}")
    print(f"{len(rows) - len(failed)} networks ready, {len(failed)} failed, {time.monotonic() - start:.0f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
