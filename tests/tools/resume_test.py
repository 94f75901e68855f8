"""A run that is killed goes on after its last finished step and ends in the same bytes."""

import os
import signal
import time
import unittest

from support import RUN_FAILED, WRONG_COMMAND, LatheTest, main

RECIPE = {
    "lathe": 1,
    "seed": 3,
    "steps": [
        {"pass": "fold.batch_norm"},
        {"pass": "prune.magnitude", "sparsity": 0.3},
        {"pass": "prune.magnitude", "sparsity": 0.6, "scope": "model"},
        {"pass": "quantize.weights", "bits": 4},
    ],
}
MODEL = "zoo:resnet18"


class Resume(LatheTest):
    def apply(self, output, *arguments, **options):
        return self.lathe("apply", "r.json", MODEL, "-o", output, "--latency-seconds", "0.01",
                          *arguments, **options)

    def kill_after_a_step(self, output):
        """Starts a run and kills it (SIGKILL) as soon as a finished step is on disk."""
        process = self.start("apply", "r.json", MODEL, "-o", output, "--latency-seconds", "60")
        state = self.path(output + ".resume/state.json")
        deadline = time.monotonic() + 120
        while not os.path.exists(state):
            self.assertIsNone(process.poll(), "ended before it could be killed")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL)

    def setUp(self):
        super().setUp()
        self.write("r.json", RECIPE)

    def test_a_killed_run_ends_in_the_same_bytes(self):
        self.apply("whole.pt2")
        self.assertFalse(os.path.exists(self.path("whole.pt2.resume")))
        self.kill_after_a_step("killed.pt2")
        _, err = self.apply("killed.pt2", "--resume")
        self.assertIn("going on after step", err)
        self.assertNotIn("lathe: step 1 of 4", err)
        self.assertEqual(self.read("killed.pt2"), self.read("whole.pt2"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["killed.pt2", "r.json", "whole.pt2"])

    def test_a_changed_recipe_or_model_is_refused(self):
        self.kill_after_a_step("o.pt2")
        saved = self.read("o.pt2.resume/state.json")
        self.fails(WRONG_COMMAND, "apply", "r.json", MODEL, "-o", "o.pt2", "--resume",
                   "--set", "seed=4", says="recipe")
        self.fails(WRONG_COMMAND, "apply", "r.json", "zoo:resnet18{classes=9}", "-o", "o.pt2",
                   "--resume", says="model")
        self.assertEqual(self.read("o.pt2.resume/state.json"), saved)

    def test_a_damaged_checkpoint_is_refused(self):
        self.kill_after_a_step("o.pt2")
        self.write("o.pt2.resume/state.json", "{")
        self.fails(RUN_FAILED, "apply", "r.json", MODEL, "-o", "o.pt2", "--resume",
                   says="state.json")

    def test_without_a_checkpoint_it_starts_at_the_first_step(self):
        _, err = self.apply("o.pt2", "--resume")
        self.assertIn("there is no interrupted run", err)
        self.assertIn("step 1 of 4", err)


if __name__ == "__main__":
    main()
