"""Wrong calls: each has a message of its own, the right exit code, and loses nothing."""

import os
import resource
import signal
import struct
import unittest

from support import (RUN_FAILED, WRONG_COMMAND, LatheTest, digits, floats, labels, main,
                     read_safetensors, write_safetensors)

LINE = "prune.magnitude"
DATA = "tensors:d.safetensors"


def recipe(**sections):
    return {"lathe": 1, "steps": [{"pass": "prune.magnitude"}], **sections}


class Mistakes(LatheTest):
    def setUp(self):
        super().setUp()
        digits(self.path("d.safetensors"))
        os.mkdir(self.path("folder"))

    def wrong(self, *arguments, says=()):
        """A wrong command: exit code 2, and no file more than before."""
        before = sorted(os.listdir(self.folder))
        err = self.fails(WRONG_COMMAND, *arguments, says=says)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        return err

    def failed(self, *arguments, says=(), **options):
        before = sorted(os.listdir(self.folder))
        err = self.fails(RUN_FAILED, *arguments, says=says, **options)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        return err

    def apply(self, recipe_, *arguments, says=(), code=WRONG_COMMAND, model="zoo:lenet5"):
        check = self.wrong if code == WRONG_COMMAND else self.failed
        return check("apply", recipe_, model, "-o", "o.pt2", *arguments, says=says)

    def test_commands_and_options(self):
        _, err = self.lathe(code=WRONG_COMMAND)
        self.assertIn("Usage: lathe", err)
        self.wrong("inspct", "zoo:lenet5", says="did you mean `inspect`?")
        self.wrong("inspect", says=["MODEL is required", "lathe inspect --help"])
        self.wrong("inspect", "zoo:lenet5", "--jsn", says="did you mean `--json`?")
        self.wrong("inspect", "zoo:lenet5", "--quiet", says="there is no option `--quiet`")
        self.wrong("version", "twice", says="`twice` is one word too many")
        self.wrong("diff", "zoo:lenet5", says="B is required")
        self.wrong("passes", "prune.magnitud", says="did you mean `prune.magnitude`?")
        self.wrong("models", "lenet6", says="did you mean `lenet5`?")

    def test_model_files(self):
        self.write("empty.pt2", b"")
        self.write("page.pth", "<!DOCTYPE html><html><body>404</body></html>")
        self.write("pointer.safetensors",
                   "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n")
        self.write("noise.pt2", bytes(range(256)))
        for name, words in [("absent.pt2", "no such file"), ("folder", "is a folder"),
                            ("empty.pt2", "is empty"), ("page.pth", "web page"),
                            ("pointer.safetensors", "git lfs pull"), ("noise.pt2", "noise.pt2")]:
            for command in [["inspect", name], ["convert", name, "o.pt2"], ["bench", name],
                            ["apply", LINE, name, "-o", "o.pt2"], ["diff", name, "zoo:lenet5"]]:
                self.failed(*command, says=[name, words])

    def test_architectures(self):
        self.wrong("inspect", "zoo:lenet6", says="did you mean `lenet5`?")
        self.wrong("inspect", "zoo:", says="lathe models")
        self.wrong("inspect", "zoo:lenet5", "--arch", "lenet5", says="--arch")
        self.wrong("inspect", "zoo:lenet5{clases=3}", says="classes")
        self.lathe("convert", "zoo:lenet5", "m.safetensors")
        write_safetensors(self.path("bare.safetensors"),
                          read_safetensors(self.path("m.safetensors")))
        err = self.wrong("inspect", "bare.safetensors", "--arch", "lenet-300-100")
        self.assertIn("fc1.weight", err)
        self.wrong("eval", "d.safetensors", "--data", DATA, says="bare set of tensors")
        self.wrong("bench", "d.safetensors", says="bare set of tensors")
        self.wrong("run", "d.safetensors", "--inputs", "d.safetensors",
                   "--outputs", "o.safetensors", says="bare set of tensors")

    def test_numbers(self):
        self.wrong("eval", "zoo:lenet5", "--data", DATA, "--batch", "-1", says="--batch")
        self.wrong("bench", "zoo:lenet5", "--batch", "0", says="--batch")
        self.wrong("bench", "zoo:lenet5", "--batch", "many", says="--batch")
        self.wrong("bench", "zoo:lenet5", "--threads", "99999", says="--threads")
        self.wrong("bench", "zoo:lenet5", "--threads", "0", says="--threads")
        self.wrong("bench", "zoo:lenet5", "--seconds", "-3", says="--seconds")

    def test_devices(self):
        for command in [["bench", "zoo:lenet5"], ["eval", "zoo:lenet5", "--data", DATA],
                        ["apply", LINE, "zoo:lenet5", "-o", "o.pt2"]]:
            self.wrong(*command, "--device", "tpu", says="--device")

    def test_data(self):
        self.wrong("eval", "zoo:lenet5", says="--data is required")
        self.wrong("eval", "zoo:lenet5", "--data", "cifar11:test", says="did you mean `cifar10`?")
        self.wrong("eval", "zoo:lenet5", "--data", DATA, "--metric", "top2", says="top1, top5")
        self.failed("eval", "zoo:lenet5", "--data", "tensors:absent.npy", says="absent.npy")
        self.wrong("eval", "zoo:resnet20-cifar10", "--data", DATA,
                   says=["[1, 28, 28]", "[batch, 3, 32, 32]"])
        write_safetensors(self.path("none.safetensors"),
                          {"inputs": ("F32", [2, 1, 28, 28], floats(2 * 784))})
        self.wrong("eval", "zoo:lenet5", "--data", "tensors:none.safetensors", says="no labels")
        write_safetensors(self.path("far.safetensors"),
                          {"inputs": ("F32", [2, 1, 28, 28], floats(2 * 784)),
                           "labels": ("I64", [2], labels([1, 10]))})
        self.wrong("eval", "zoo:lenet5", "--data", "tensors:far.safetensors",
                   says=["far.safetensors", "label 10 is outside the model's 10 classes"])

    def test_inputs_of_run(self):
        image = ("F32", [1, 3, 28, 28], floats(3 * 784))
        write_safetensors(self.path("in.safetensors"), {"x": image})
        inputs = ["--inputs", "in.safetensors"]
        self.wrong("run", "zoo:lenet5", *inputs, "--outputs", "o.safetensors",
                   says=["f32[1,3,28,28]", "f32[batch,1,28,28]"])
        self.wrong("run", "zoo:lenet5", *inputs, "--outputs", "o.pt2", says="--outputs")
        write_safetensors(self.path("in.safetensors"), {"image": image})
        self.wrong("run", "zoo:lenet5", *inputs, "--outputs", "o.safetensors",
                   says=["in.0", "image"])

    def test_recipe_files(self):
        self.write("text.json", "hello\n")
        self.write("cut.json", '{"lathe": 1, "steps": [}')
        self.write("empty.json", "")
        self.write("list.json", [1])
        self.apply("absent.json", says="absent.json", code=RUN_FAILED)
        self.apply("folder", says="is a folder", code=RUN_FAILED)
        self.apply("", says="is empty")
        self.apply("text.json", says="text.json: line 1")
        self.apply("cut.json", says="line 1, column 24")
        self.apply("list.json", says="a recipe is an object")
        self.apply("prune.magnitude{sparsity=0.5", says="column 29")
        self.apply("prune.magnitud", says="did you mean `prune.magnitude`?")
        self.apply("prune.magnitude{where=conv9.weight}", says="did you mean `conv1.weight`?")

    def test_all_problems_of_a_recipe_are_told_at_once(self):
        self.write("r.json", {
            "lathe": 1, "name": 5, "seed": "x",
            "data": {"test": {"cifar1O": {}}, "more": {"tensors": {"path": 3}}},
            "steps": [{"pass": "prune.magnitud"}, {"pass": "prune.magnitude", "sparsity": "half"},
                      {"pass": "prune.magnitude", "sparsty": 0.5},
                      {"pass": "quantize.weights", "bits": 99}],
            "evaluate": {"data": "tset", "metrics": ["top2"], "batch_size": -1}})
        err = self.apply("r.json")
        for place in ["/name", "/seed", "/data/test", "/data/more", "/steps/0/pass",
                      "/steps/1/sparsity", "/steps/2/sparsty", "/steps/3/bits", "/evaluate/data",
                      "/evaluate/metrics", "/evaluate/batch_size"]:
            self.assertIn(f"r.json: {place}", err)
        self.assertIn("did you mean `test`?", err)

    def test_data_of_a_recipe(self):
        self.write("r.json", recipe(data={"test": {"tensors": {"path": "no.npy"}}}, evaluate={}))
        self.apply("r.json", says=["/data/test", "no.npy"], code=RUN_FAILED)
        self.write("r.json", recipe(evaluate={}))
        self.apply("r.json", says="there is no data entry `test`")
        self.write("r.json", recipe(data={"test": {"tensors": {"path": "d.safetensors"}}},
                                    evaluate={}))
        self.apply("r.json", says="[1, 28, 28]", model="zoo:resnet20-cifar10")

    def test_calibration_data_that_does_not_fit(self):
        self.write("r.json", {"lathe": 1, "data": {"calibration": {"tensors": {"path": "d.safetensors"}}},
                              "steps": [{"pass": "fold.batch_norm"}, {"pass": "quantize.static"}]})
        self.apply("r.json", model="zoo:resnet20-cifar10",
                   says=["/data/calibration", "[1, 28, 28]", "`x` is [batch, 3, 32, 32]"])

    def test_settings_and_limits(self):
        self.apply(LINE, "--set", "sparsity", says="--set")
        self.apply(LINE, "--set", "steps.7.sparsity=1", says="steps.7")
        self.apply(LINE, "--set", "steps.0.sparsty=1", says="did you mean `sparsity`?")
        self.apply(LINE, "--limit", "prune.magnitude", says="PASS=N")
        self.apply(LINE, "--limit", "prune.magnitde=1", says="did you mean `prune.magnitude`?")
        self.apply(LINE, "--stop-after", "9", says="--stop-after")
        self.apply(LINE, "--print-after", "quantise.weights", says="--print-after")
        self.apply(LINE, "--dry-run", "--resume", says="--resume")
        self.apply(LINE, "--dry-run", "--report", "r", says="--report")

    def test_outputs(self):
        self.wrong("apply", LINE, "zoo:lenet5", says="-o OUT.pt2")
        self.wrong("apply", LINE, "zoo:lenet5", "-o", "o.tflite", says="o.tflite")
        self.wrong("convert", "zoo:lenet5", "o.tflite", says="o.tflite")
        self.failed("convert", "zoo:lenet5", "none/o.pt2", says="none")
        os.mkdir(self.path("taken.pt2"))
        self.failed("convert", "zoo:lenet5", "taken.pt2", says="folder")
        self.failed("apply", LINE, "zoo:lenet5", "-o", "o.pt2", "--report", "d.safetensors",
                    says=["--report", "is a file"])
        self.failed("apply", LINE, "zoo:lenet5", "-o", "o.pt2", "--report", "d.safetensors/x",
                    says=["--report", "is a file"])

    def test_steps_that_need_a_graph(self):
        write_safetensors(self.path("bare.safetensors"), {"a.weight": ("F32", [2, 2], bytes(16))})
        for step in ["fold.batch_norm", "prune.compact", "prune.heads", "quantize.cross_layer_equalize"]:
            self.wrong("apply", step, "bare.safetensors", "-o", "o.safetensors",
                       says=["/steps/0", "tensors without a graph", "--arch"])

    def test_a_family_in_the_place_of_a_pass(self):
        self.wrong("passes", "prune", says=["there is no pass `prune`", "prune.magnitude", "prune.wanda"])

    def test_operators_that_a_format_lacks_are_told_before_the_first_step(self):
        self.write("bessel.lathe.txt", "input x : f32[batch,2]\n"
                                       "parameter w : f32[2,2] = [[1, -4], [3, -2]]\n"
                                       "y = aten::linear(x, w)\nz = aten::special_bessel_j0(y)\nreturn z = z\n")
        for more in [["-o", "o.pt2", "-o", "o.onnx"], ["-o", "o.onnx", "--dry-run"]]:
            message = self.failed("apply", "prune.magnitude", "bessel.lathe.txt", *more,
                                  says="aten::special_bessel_j0")
            self.assertNotIn("step 1", message)
        self.assertFalse(os.path.exists(self.path("o.pt2")))

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_a_folder_that_cannot_be_written_to(self):
        os.chmod(self.path("folder"), 0o500)
        self.failed("convert", "zoo:lenet5", "folder/o.pt2", says="folder")

    def test_weights_that_are_not_numbers(self):
        self.lathe("convert", "zoo:lenet5", "m.safetensors")
        tensors = read_safetensors(self.path("m.safetensors"))
        dtype, sizes, content = tensors["fc2.weight"]
        tensors["fc2.weight"] = (dtype, sizes, struct.pack("<f", float("nan")) + content[4:])
        write_safetensors(self.path("nan.safetensors"), tensors)
        self.failed("apply", LINE, "nan.safetensors", "--arch", "lenet5", "-o", "o.pt2",
                    says=["NaN", "fc2.weight"])

    def test_a_full_disk_keeps_the_old_file(self):
        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        self.write("o.pt2", "precious")
        self.failed("convert", "zoo:lenet5", "o.pt2", says="o.pt2", preexec_fn=small_files)
        self.failed("apply", LINE, "zoo:lenet5", "-o", "o.pt2", preexec_fn=small_files)
        self.assertEqual(self.read("o.pt2"), b"precious")

    def test_a_full_device(self):
        os.symlink("/dev/full", self.path("full.pt2"))
        self.failed("convert", "zoo:lenet5", "full.pt2", says="no space left")


if __name__ == "__main__":
    main()
