"""`--engine` of run, eval and bench: the same answers, the plan on request, refusals that say what to do."""

import struct
import unittest

from support import WRONG_COMMAND, LatheTest, digits, main, read_safetensors, write_safetensors


class Engine(LatheTest):
    def setUp(self):
        super().setUp()
        digits(self.path("d.safetensors"))
        images = read_safetensors(self.path("d.safetensors"))["inputs"]
        write_safetensors(self.path("in.safetensors"), {"x": images})
        probe = self.start("bench", "zoo:lenet5", "--engine", "--seconds", "0.01")
        if "oneDNN was not found" in probe.communicate()[1].decode():
            self.skipTest("this build has no oneDNN")

    def logits(self, *arguments):
        _, err = self.lathe("run", "zoo:lenet5", "--inputs", "in.safetensors", "--outputs", "o.safetensors", *arguments)
        return struct.unpack("<320f", read_safetensors(self.path("o.safetensors"))["out.0"][2]), err

    def test_run_computes_the_same(self):
        expected, _ = self.logits()
        ours, err = self.logits("--engine")
        self.assertEqual(err, "")
        for a, b in zip(ours, expected):
            self.assertAlmostEqual(a, b, delta=1e-5)

    def test_run_in_bfloat16_computes_nearly_the_same(self):
        arguments = ["zoo:lenet5", "--inputs", "in.safetensors", "--outputs", "o.safetensors"]
        process = self.start("run", *arguments, "--engine", "--precision", "bfloat16")
        err = process.communicate()[1].decode()
        if "no bfloat16 kernels for this processor" in err:
            self.skipTest(err)
        self.assertEqual((process.returncode, err), (0, ""))
        near = struct.unpack("<320f", read_safetensors(self.path("o.safetensors"))["out.0"][2])
        expected, _ = self.logits()
        self.assertNotEqual(near, expected)
        for a, b in zip(near, expected):
            self.assertAlmostEqual(a, b, delta=2e-2)

    def test_plan_goes_to_standard_error(self):
        _, err = self.logits("--engine", "--plan")
        self.assertIn("convolution", err)
        self.assertIn("fc1", err)
        self.assertIn("scratchpad", err)

    def test_eval_computes_the_same_in_whole_and_rest_batches(self):
        arguments = ["eval", "zoo:lenet5", "--data", "tensors:d.safetensors", "--metric", "loss", "--batch", "5"]
        self.assertAlmostEqual(self.json(*arguments, "--engine")["loss"], self.json(*arguments)["loss"], places=5)

    def test_bench_times_the_plan_beside_the_interpreter(self):
        rows = self.json("bench", "zoo:lenet5", "--engine", "--seconds", "0.05")
        self.assertEqual([row["model"] for row in rows], ["zoo:lenet5", "zoo:lenet5 (engine)"])
        for row in rows:
            self.assertGreaterEqual(row["runs"], 5)
            self.assertLessEqual(row["low_ms"], row["median_ms"])

    def test_refuses_what_the_engine_does_not_do(self):
        for arguments, words in [(["--plan"], "add --engine"),
                                 (["--precision", "bfloat16"], "add --engine"),
                                 (["--engine", "--train"], "inference mode only")]:
            _, err = self.lathe("run", "zoo:lenet5", "--inputs", "in.safetensors", "--outputs", "o.safetensors",
                                *arguments, code=WRONG_COMMAND)
            self.assertIn(words, err)


if __name__ == "__main__":
    main()
