"""lathe apply: one table, one report, the same bytes every time."""

import html
import json
import os
import re
import unittest

from support import LatheTest, digits, main

RECIPE = {
    "lathe": 1,
    "name": "small",
    "seed": 1,
    "data": {"test": {"tensors": {"path": "d.safetensors"}}},
    "steps": [
        {"pass": "prune.magnitude", "sparsity": 0.5},
        {"pass": "quantize.weights", "bits": 4, "granularity": "channel"},
    ],
    "evaluate": {"metrics": ["top1", "loss"]},
}
QUICK = ["--latency-seconds", "0.01"]


class Apply(LatheTest):
    def setUp(self):
        super().setUp()
        digits(self.path("d.safetensors"))
        self.write("r.json", RECIPE)

    def apply(self, *arguments, recipe="r.json", model="zoo:lenet5"):
        return self.lathe("apply", recipe, model, *QUICK, *arguments)

    def report(self, *arguments, recipe="r.json", model="zoo:lenet5"):
        return self.json("apply", recipe, model, *QUICK, *arguments)

    def test_results_go_to_stdout_and_messages_to_stderr(self):
        out, err = self.apply("-o", "o.pt2")
        self.assertIn("parameters", out)
        self.assertNotIn("step 1", out)
        self.assertIn("step 1 of 2: prune.magnitude", err)
        for line in err.splitlines():
            self.assertTrue(line.startswith("lathe: "), line)

    def test_the_same_recipe_and_seed_give_the_same_bytes(self):
        for extension in ["pt2", "safetensors"]:
            for name, threads in [("a", "1"), ("b", "1"), ("c", "2")]:
                self.apply("-o", f"{name}.{extension}", "--threads", threads)
            first = self.read(f"a.{extension}")
            self.assertEqual(first, self.read(f"b.{extension}"))
            self.assertEqual(first, self.read(f"c.{extension}"), "with 2 threads")

    def test_dry_run_predicts_what_the_run_gives_and_writes_nothing(self):
        before = sorted(os.listdir(self.folder))
        promised = self.report("--dry-run")
        self.assertIn("bytes of tensors", self.apply("--dry-run")[0])
        self.assertNotIn("file_bytes", promised["after"])
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        found = self.report("-o", "o.pt2")
        for key in ["parameters", "nonzeros", "macs", "bits_per_weight", "weight_nonzeros", "payload_bytes"]:
            self.assertEqual(promised["after"]["cost"][key], found["after"]["cost"][key], key)
        self.assertEqual(promised["before"]["cost"], found["before"]["cost"])

    def test_the_report_equals_the_table_the_file_and_inspect(self):
        out, _ = self.apply("-o", "o.pt2", "--report", "report")
        report = json.loads(self.read("report/report.json"))
        inspected = self.json("inspect", "o.pt2")["cost"]
        for key in ["parameters", "nonzeros", "macs", "bits_per_weight"]:
            self.assertEqual(report["after"]["cost"][key], inspected[key], key)
        self.assertEqual(report["after"]["file_bytes"], os.path.getsize(self.path("o.pt2")))
        evaluated = self.json("eval", "o.pt2", "--data", "tensors:d.safetensors",
                              "--metric", "top1", "--metric", "loss")
        for metric in ["top1", "loss"]:
            self.assertAlmostEqual(report["after"]["metrics"][metric], evaluated[metric], places=6)
        rows = {re.split(r"  +", line)[0]: line for line in out.splitlines()}
        self.assertIn(f"{inspected['nonzeros']:,}", rows["non-zeros"])
        self.assertIn(f"{report['after']['file_bytes']:,}", rows["bytes on disk"])
        self.assertIn(f"{report['before']['file_bytes']:,}", rows["bytes on disk"])
        self.assertIn(f"{report['after']['metrics']['top1']:.2f}", rows["top-1 accuracy, %"])

    def test_the_page_shows_the_figures_and_stands_alone(self):
        self.apply("-o", "o.pt2", "--report", "report", recipe="r.json")
        page = self.read("report/report.html").decode()
        report = json.loads(self.read("report/report.json"))
        text = html.unescape(page)
        for figure in [report["after"]["cost"]["nonzeros"], report["after"]["file_bytes"]]:
            self.assertIn(f"{figure:,}", text)
        for layer in report["after"]["cost"]["layers"]:
            self.assertIn(layer["name"], text)
        self.assertNotIn("<script", page)
        self.assertNotIn("http", page)

    def test_the_page_escapes_what_the_recipe_says(self):
        self.write("r.json", {**RECIPE, "name": "<script>alert(1)</script>"})
        self.apply("-o", "o.pt2", "--report", "report")
        self.assertNotIn("<script", self.read("report/report.html").decode())

    def test_steps_tell_what_was_asked_and_achieved(self):
        prune, quantize = self.report("-o", "o.pt2")["steps"]
        self.assertEqual(prune["options"]["sparsity"], 0.5)
        self.assertEqual(quantize["options"]["bits"], 4)
        self.assertTrue(prune["counts"])

    def test_settings_variables_and_includes(self):
        self.write("base.json", {"lathe": 1, "variables": {"rate": 0.25},
                                 "steps": [{"pass": "prune.magnitude", "sparsity": "${rate}"}]})
        self.write("top.json", {"lathe": 1, "include": "base.json", "steps": []})
        for settings, expected in [([], 0.25), (["--set", "variables.rate=0.75"], 0.75),
                                   (["--set", "steps.0.sparsity=0.5"], 0.5)]:
            report = self.report("--dry-run", *settings, recipe="base.json")
            self.assertEqual(report["steps"][0]["options"]["sparsity"], expected)
            self.assertAlmostEqual(report["after"]["cost"]["weight_sparsity"], expected, places=3)
        self.write("top.json", {"lathe": 1, "include": "base.json",
                                "steps": [{"pass": "quantize.weights"}]})
        passes = [step["pass"] for step in self.report("--dry-run", recipe="top.json")["steps"]]
        self.assertEqual(passes, ["prune.magnitude", "quantize.weights"])

    def test_one_line_is_a_recipe(self):
        line = "prune.magnitude{sparsity=0.5},quantize.weights{bits=4,granularity=channel}"
        self.write("same.json", {key: RECIPE[key] for key in ["lathe", "steps"]})
        self.apply("-o", "a.safetensors", recipe=line)
        self.apply("-o", "b.safetensors", recipe="same.json")
        self.assertEqual(self.read("a.safetensors"), self.read("b.safetensors"))
        report = self.report("--dry-run", "--set", "steps.0.sparsity=0.25", recipe=line)
        self.assertEqual(report["steps"][0]["options"]["sparsity"], 0.25)

    def test_several_outputs_hold_the_same_model(self):
        self.apply("-o", "a.pt2", "-o", "a.safetensors")
        self.assertEqual(self.json("inspect", "a.pt2")["cost"]["nonzeros"],
                         self.json("inspect", "a.safetensors")["cost"]["nonzeros"])

    def test_options_may_stand_before_the_recipe(self):
        self.lathe("apply", "-o", "o.pt2", "--set", "seed=2", *QUICK, "r.json", "zoo:lenet5")
        self.assertTrue(os.path.exists(self.path("o.pt2")))

    def test_a_model_comes_from_standard_input(self):
        self.lathe("convert", "zoo:lenet5", "m.pt2")
        with open(self.path("m.pt2"), "rb") as file:
            self.lathe("apply", "r.json", "-", "-o", "o.safetensors", *QUICK, stdin=file)
        self.apply("-o", "p.safetensors")
        self.assertEqual(self.json("diff", "o.safetensors", "p.safetensors")["tensors"], [])

    def test_a_file_can_be_replaced_by_its_own_compression(self):
        self.lathe("convert", "zoo:lenet5", "m.pt2")
        old = os.path.getsize(self.path("m.pt2"))
        report = self.report("-o", "m.pt2", model="m.pt2")
        self.assertEqual(report["before"]["file_bytes"], old)
        self.assertEqual(report["after"]["file_bytes"], os.path.getsize(self.path("m.pt2")))

    def test_stop_after_print_after_limit_and_verify(self):
        _, err = self.apply("-o", "o.pt2", "--stop-after", "0", "--print-after", "all", "--verify")
        self.assertIn("after step 0 (prune.magnitude)", err)
        self.assertNotIn("step 2 of 2", err)
        report = self.report("-o", "o.pt2", "--stop-after", "prune.magnitude",
                             "--limit", "prune.magnitude=1")
        pruned = [layer for layer in report["after"]["cost"]["layers"]
                  if layer["nonzeros"] < layer["elements"]]
        self.assertEqual(len(pruned), 1)

    def test_resnet20_folds_prunes_and_quantizes(self):
        report = self.report("-o", "o.pt2", model="zoo:resnet20-cifar10",
                             recipe="fold.batch_norm,prune.magnitude,quantize.weights")
        self.assertLess(report["after"]["file_bytes"], report["before"]["file_bytes"] / 3)
        self.assertAlmostEqual(report["after"]["cost"]["weight_sparsity"], 0.5, delta=0.02)


if __name__ == "__main__":
    main()
