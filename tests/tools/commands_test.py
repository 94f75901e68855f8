"""Every command but apply: its result on stdout, its messages on stderr, its files."""

import json
import os
import struct
import unittest

from support import RUN_FAILED, WRONG_COMMAND, LatheTest, digits, floats, main, read_safetensors, write_safetensors

COMMANDS = "inspect apply run eval bench convert diff passes models schema version".split()


class Commands(LatheTest):
    def test_help_names_every_command_and_each_has_its_own(self):
        out, err = self.lathe("--help")
        self.assertEqual(err, "")
        for command in COMMANDS:
            self.assertIn(f"  {command} ", out)
            own, _ = self.lathe(command, "--help")
            self.assertIn(f"Usage: lathe {command}", own)
            self.assertNotIn("Start here", own)
            for line in own.splitlines():
                self.assertLessEqual(len(line), 140, line)

    def test_version_names_lathe_and_libtorch(self):
        out, _ = self.lathe("version")
        self.assertRegex(out, r"^lathe \d+\.\d+\.\d+\nLibTorch 2\.")

    def test_passes_lists_and_describes(self):
        ids = [row["id"] for row in self.json("passes")]
        self.assertIn("prune.magnitude", ids)
        listed, _ = self.lathe("passes")
        for id in ids:
            self.assertIn(id, listed)
        described, _ = self.lathe("passes", "prune.magnitude")
        self.assertIn("sparsity=0.5", described)
        (row,) = self.json("passes", "prune.magnitude")
        self.assertIn("sparsity", row["options"]["properties"])

    def test_models_lists_and_describes(self):
        names = [row["name"] for row in self.json("models")]
        self.assertIn("lenet5", names)
        out, _ = self.lathe("models", "lenet5")
        self.assertIn("f32[batch,1,28,28]", out)
        for line in self.lathe("models")[0].splitlines():
            self.assertLessEqual(len(line), 100, line)

    def test_schema_is_json_and_knows_every_pass(self):
        text, err = self.lathe("schema")
        self.assertEqual(err, "")
        json.loads(text)
        for row in self.json("passes"):
            self.assertIn(row["id"], text)

    def test_inspect_counts_lenet5_as_by_hand(self):
        cost = self.json("inspect", "zoo:lenet5")["cost"]
        # 6 5x5 and 16 6x5x5 filters, 400-120-84-10, each with biases.
        parameters = (25 + 1) * 6 + (150 + 1) * 16 + 401 * 120 + 121 * 84 + 85 * 10
        macs = 28 * 28 * 25 * 6 + 10 * 10 * 150 * 16 + 400 * 120 + 120 * 84 + 84 * 10
        self.assertEqual(cost["parameters"], parameters)
        self.assertEqual(cost["macs"], macs)
        self.assertEqual(cost["bits_per_weight"], 32)
        table, _ = self.lathe("inspect", "zoo:lenet5")
        self.assertIn(f"{parameters:,}", table)
        self.assertIn("fc1.weight", table)

    def test_inspect_knows_resnet20(self):
        cost = self.json("inspect", "zoo:resnet20-cifar10")["cost"]
        self.assertEqual(cost["parameters"], 269722)
        self.assertAlmostEqual(cost["macs"] / 1e6, 40.55, places=2)

    def test_inspect_adds_up_the_files_of_a_sharded_model(self):
        parts = {"a.safetensors": "a.weight", "b.safetensors": "b.weight"}
        for file, name in parts.items():
            write_safetensors(self.path(file), {name: ("F32", [4, 8], floats(32))})
        index = {"weight_map": {name: file for file, name in parts.items()}}
        with open(self.path("m.safetensors.index.json"), "w") as file:
            json.dump(index, file)
        expected = sum(os.path.getsize(self.path(name)) for name in [*parts, "m.safetensors.index.json"])
        self.assertEqual(self.json("inspect", "m.safetensors.index.json")["file_bytes"], expected)

    def test_inspect_prints_the_graph(self):
        out, _ = self.lathe("inspect", "zoo:lenet5", "--graph")
        self.assertIn("aten::conv2d", out)
        self.assertIn("return", out)

    def test_convert_and_back_changes_nothing(self):
        self.lathe("convert", "zoo:lenet5", "a.pt2")
        self.lathe("convert", "a.pt2", "b.safetensors")
        self.lathe("convert", "b.safetensors", "c.pt2")
        differences = self.json("diff", "a.pt2", "c.pt2")
        self.assertEqual(differences["tensors"], [])
        self.assertEqual(differences["operators"], [])

    def test_convert_needs_an_architecture_for_bare_weights(self):
        self.lathe("convert", "zoo:lenet-300-100", "a.safetensors")
        tensors = read_safetensors(self.path("a.safetensors"))
        write_safetensors(self.path("bare.safetensors"), tensors)
        _, err = self.lathe("inspect", "bare.safetensors")
        self.assertIn("lenet-300-100", err)
        self.lathe("convert", "bare.safetensors", "b.pt2", "--arch", "lenet-300-100")
        self.assertEqual(self.json("diff", "b.pt2", "zoo:lenet-300-100")["tensors"], [])

    def test_a_model_comes_from_standard_input(self):
        self.lathe("convert", "zoo:lenet5", "a.pt2")
        with open(self.path("a.pt2"), "rb") as file:
            cost = self.json("inspect", "-", stdin=file)["cost"]
        self.assertEqual(cost["parameters"], 61706)

    def test_run_finds_inputs_by_name_and_by_position(self):
        image = ("F32", [2, 1, 28, 28], floats(2 * 784))
        write_safetensors(self.path("named.safetensors"), {"x": image})
        write_safetensors(self.path("counted.safetensors"), {"in.0": image})
        for name in ["named", "counted"]:
            out, err = self.lathe(
                "run", "zoo:lenet5", "--inputs", f"{name}.safetensors",
                "--outputs", f"{name}.out.safetensors")
            self.assertEqual(out + err, "")
        named = read_safetensors(self.path("named.out.safetensors"))
        self.assertEqual(named["out.0"][:2], ("F32", [2, 10]))
        self.assertEqual(named, read_safetensors(self.path("counted.out.safetensors")))

    def test_run_multiplies_as_by_hand(self):
        self.write("m.lathe.txt", "input x : f32[batch,2]\n"
                                  "parameter w : f32[2,2] = [[1, -4], [3, -2]]\n"
                                  "y = aten::linear(x, w)\nreturn y = y\n")
        write_safetensors(self.path("in.safetensors"),
                          {"x": ("F32", [1, 2], struct.pack("<2f", 1, 10))})
        self.lathe("run", "m.lathe.txt", "--inputs", "in.safetensors", "--outputs", "o.safetensors")
        content = read_safetensors(self.path("o.safetensors"))["out.0"][2]
        self.assertEqual(struct.unpack("<2f", content), (1 - 40, 3 - 20))

    def test_eval_agrees_with_the_outputs_of_run(self):
        digits(self.path("d.safetensors"))
        data = read_safetensors(self.path("d.safetensors"))
        write_safetensors(self.path("in.safetensors"), {"x": data["inputs"]})
        self.lathe("run", "zoo:lenet5", "--inputs", "in.safetensors", "--outputs", "o.safetensors")
        logits = struct.unpack("<320f", read_safetensors(self.path("o.safetensors"))["out.0"][2])
        truth = struct.unpack("<32q", data["labels"][2])
        rows = [logits[10 * i : 10 * i + 10] for i in range(32)]
        right = sum(row.index(max(row)) == label for row, label in zip(rows, truth))
        figures = self.json("eval", "zoo:lenet5", "--data", "tensors:d.safetensors",
                            "--metric", "top1", "--metric", "loss", "--batch", "5")
        self.assertAlmostEqual(figures["top1"], 100 * right / 32)
        self.assertEqual(figures["samples"], 32)
        self.assertGreater(figures["loss"], 0)

    def test_bench_times_two_models_in_turns(self):
        rows = self.json("bench", "zoo:lenet5", "--against", "zoo:lenet-300-100",
                         "--seconds", "0.05", "--threads", "1", "--batch", "2")
        self.assertEqual([row["model"] for row in rows], ["zoo:lenet5", "zoo:lenet-300-100"])
        for row in rows:
            self.assertGreaterEqual(row["runs"], 5)
            self.assertEqual((row["threads"], row["batch"]), (1, 2))
            self.assertLessEqual(row["low_ms"], row["median_ms"])
            self.assertLessEqual(row["median_ms"], row["high_ms"])
        self.assertGreater(rows[1]["runs"], rows[0]["runs"])  # the faster one fills its turn

    def test_figures_are_those_of_the_asked_sizes(self):
        macs = {size: self.json("inspect", "zoo:nanogpt{layers=1}", "--size", f"sequence={size}")["cost"]["macs"] for size in (8, 16)}
        # Layers grow with the tokens, attention with their square.
        self.assertGreater(macs[16], 2 * macs[8])
        self.assertLess(macs[16], 2.2 * macs[8])
        self.assertEqual(self.json("inspect", "zoo:nanogpt{layers=1}")["cost"]["macs"], macs[8])
        self.assertIn("MACs a sample, sequence 16", self.lathe("inspect", "zoo:nanogpt{layers=1}", "--size", "sequence=16")[0])
        (row,) = self.json("bench", "zoo:nanogpt{layers=1}", "--size", "sequence=16", "--seconds", "0.01")
        self.assertEqual(row["sizes"], "sequence 16")
        for out in "a.pt2", "a.safetensors":
            table, _ = self.lathe("apply", "prune.magnitude", "zoo:nanogpt{layers=1}", "--size", "sequence=16", "-o", out,
                                  "--latency-seconds", "0.01", "--report", "report")
            self.assertIn("MACs and latency at sequence 16; ", table)
            with open(self.path("report/report.json")) as file:
                report = json.load(file)
            self.assertEqual(report["before"]["cost"]["macs"], macs[16])
            self.assertEqual(report["after"]["cost"]["macs"], macs[16])

    def test_sizes_that_a_model_lacks_are_refused(self):
        for wrong, says in {
            "tokens=16": "the inputs have no free size `tokens` (they have: sequence)",
            "batch=4": "the inputs have no free size `batch`",
            "sequence=": "write NAME=N",
            "sequence=0": "write NAME=N",
            "sequence=1": "figures are taken at sizes from 2 on",
        }.items():
            self.fails(WRONG_COMMAND, "inspect", "zoo:nanogpt{layers=1}", "--size", wrong, says=says)
        # The table of positions is full.
        self.fails(RUN_FAILED, "inspect", "zoo:nanogpt{layers=1}", "--size", "sequence=100000", says="--size sequence=100000")

    def test_diff_compares_digests_where_there_is_no_more(self):
        told = self.lathe("convert", "zoo:lenet5", "whole.lathe.txt")[1]
        self.assertIn("9 of 10 tensors are written as digests", told)  # one bias has 6 elements
        self.lathe("apply", "prune.magnitude", "zoo:lenet5", "-o", "zeros.lathe.txt", "--latency-seconds", "0.01")
        same = self.json("diff", "whole.lathe.txt", "zoo:lenet5")
        self.assertEqual((same["layers"], same["tensors"]), ([], []))
        masks = self.json("diff", "whole.lathe.txt", "zeros.lathe.txt")["tensors"]
        self.assertTrue(all(row["name"].endswith("_mask") for row in masks) and masks)

    def test_diff_tells_what_differs(self):
        self.lathe("apply", "prune.magnitude{where=fc1.weight}", "zoo:lenet5", "-o", "p.pt2",
                   "--latency-seconds", "0.01")
        difference = self.json("diff", "zoo:lenet5", "p.pt2")
        self.assertEqual([row["name"] for row in difference["layers"]], ["fc1.weight"])
        self.assertEqual(difference["layers"][0]["zeros_b"], 0.5)
        self.assertGreater(difference["layers"][0]["largest_difference"], 0)

    def test_a_full_standard_output_is_an_error(self):
        for arguments in [["models"], ["inspect", "zoo:lenet5"], ["schema"], ["passes", "--json"]]:
            with open("/dev/full", "wb") as full:
                _, err = self.lathe(*arguments, code=1, stdout=full)
            self.assertIn("standard output", err)


if __name__ == "__main__":
    main()
