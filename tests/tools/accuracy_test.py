"""Published checkpoints read their published accuracy through `lathe eval`."""

import os
import pathlib
import unittest

from support import LatheTest, main

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKPOINTS = pathlib.Path(os.environ.get("LATHE_SHARED", ROOT.parent / "shared")) / "checkpoints"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "lathe/data"
CIFAR = pathlib.Path(os.environ.get("LATHE_DATA", CACHE)) / "cifar10"


@unittest.skipUnless(CHECKPOINTS.is_dir(), f"no checkpoints at {CHECKPOINTS}")
@unittest.skipUnless(CIFAR.is_dir(), "CIFAR-10 is not in the cache; tools/fetch_data cifar10 fetches it")
class AccuracyTest(LatheTest):
    def check(self, name, published):
        read = self.json("eval", str(CHECKPOINTS / f"{name}.th"), "--arch", name, "--data", "cifar10:test,normalize=imagenet")
        # Another processor sums in another order: one of the 10,000 images may fall the other way.
        self.assertAlmostEqual(read["top1"], published, delta=0.011)

    def test_resnet20(self):
        self.check("resnet20-cifar10", 91.73)

    def test_resnet56(self):
        self.check("resnet56-cifar10", 93.39)


if __name__ == "__main__":
    main()
