"""What the tests of the lathe command share: running it, and small files made by hand."""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

LATHE = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else "lathe"

DONE, RUN_FAILED, WRONG_COMMAND = 0, 1, 2


def main():
    """Runs the tests of the calling file; its first argument is the lathe binary."""
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])


def write_safetensors(path, tensors):
    """Writes {name: (dtype, sizes, bytes)} by the format's description."""
    header, data = {}, b""
    for name, (dtype, sizes, content) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": sizes,
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    """Returns {name: (dtype, sizes, bytes)}."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    data = content[8 + length :]
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def floats(count, seed=1):
    generator = random.Random(seed)
    return struct.pack(f"<{count}f", *(generator.gauss(0, 1) for _ in range(count)))


def labels(values):
    return struct.pack(f"<{len(values)}q", *values)


def digits(path, count=32, classes=10):
    """Random images of 28 x 28 with random labels."""
    generator = random.Random(2)
    write_safetensors(
        path,
        {
            "inputs": ("F32", [count, 1, 28, 28], floats(count * 784)),
            "labels": ("I64", [count], labels([generator.randrange(classes) for _ in range(count)])),
        },
    )


class LatheTest(unittest.TestCase):
    """Runs lathe in an empty folder that goes away with the test."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        mode = "wb" if isinstance(content, bytes) else "w"
        with open(self.path(name), mode) as file:
            file.write(content)
        return name

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def start(self, *arguments, **options):
        return subprocess.Popen(
            [LATHE, *arguments],
            cwd=self.folder,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            **options,
        )

    def lathe(self, *arguments, code=DONE, **options):
        """Runs lathe, expects the exit code, and returns what it wrote to (stdout, stderr)."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=300)
        out, err = (out or b"").decode(), err.decode()
        self.assertEqual(process.returncode, code, f"lathe {' '.join(arguments)}\n{out}\n{err}")
        self.assertNotIn("\033", out + err, "colour or cursor codes outside of a terminal")
        return out, err

    def json(self, *arguments, **options):
        return json.loads(self.lathe(*arguments, "--json", **options)[0])

    def fails(self, code, *arguments, says=(), **options):
        """Runs lathe, expects it to fail with nothing on stdout and these words on stderr."""
        out, err = self.lathe(*arguments, code=code, **options)
        self.assertEqual(out, "")
        self.assertIn("lathe: error: ", err)
        for words in [says] if isinstance(says, str) else says:
            self.assertIn(words, err)
        return err
