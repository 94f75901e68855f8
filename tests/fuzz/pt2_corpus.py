"""Writes .pt2 files as the texts that pt2_fuzz.cpp reads: pt2_corpus.py FOLDER FILE.pt2...

Sample inputs and what the exporter notes for people (stack traces) are left out.
"""

import json
import pathlib
import sys
import zipfile

UNREAD = ("/data/sample_inputs/", "/.data/", "byteorder", "archive_format", "archive_version")


def without_notes(node):
    if isinstance(node, list):
        return [without_notes(element) for element in node]
    if not isinstance(node, dict):
        return node
    kept = {key: without_notes(value) for key, value in node.items()}
    if isinstance(kept.get("metadata"), dict):
        kept["metadata"] = {k: v for k, v in kept["metadata"].items() if k == "nn_module_stack"}
    return kept


def sections(path):
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if any(part in name for part in UNREAD):
                continue
            contents = archive.read(name)
            if name.endswith(".json"):
                document = without_notes(json.loads(contents))
                contents = json.dumps(document, separators=(",", ":")).encode()
            yield b"#### " + name.encode() + b"\n" + contents


def main(folder, *files):
    for file in map(pathlib.Path, files):
        out = pathlib.Path(folder) / (file.stem + ".txt")
        out.write_bytes(b"\n".join(sections(file)))


if __name__ == "__main__":
    main(*sys.argv[1:])
