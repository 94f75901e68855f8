"""Training by the command line: killed at any moment it ends in the same bytes, and says what is wrong."""

import json
import os
import random
import resource
import signal
import time

from support import RUN_FAILED, WRONG_COMMAND, LatheTest, floats, labels, main, write_safetensors

MODEL = "zoo:resnet20-cifar10"
SAMPLES = 96


def recipe(**train):
    options = {"epochs": 3, "batch_size": 16, "checkpoint_steps": 1, "workers": 1, "optimizer": "adamw",
               "ema": 0.9, "during": [{"pass": "prune.gradual", "sparsity": 0.5, "frequency": 1}]}
    options.update(train)
    return {
        "lathe": 1,
        "seed": 3,
        "data": {"train": {"tensors": {"path": "data.safetensors"}}},
        "steps": [{"train": options}, {"pass": "quantize.weights", "bits": 4}],
        "evaluate": {"data": "train", "metrics": ["top1"]},
    }


def images(path, classes=10):
    """Random images of 32 x 32 with random labels."""
    generator = random.Random(1)
    numbers = [generator.randrange(classes) for _ in range(SAMPLES)]
    write_safetensors(path, {
        "inputs": ("F32", [SAMPLES, 3, 32, 32], floats(SAMPLES * 3 * 32 * 32)),
        "labels": ("I64", [SAMPLES], labels(numbers)),
    })


class Training(LatheTest):
    def setUp(self):
        super().setUp()
        images(self.path("data.safetensors"))
        self.write("r.json", recipe())

    def apply(self, output, *arguments, **options):
        return self.lathe("apply", "r.json", MODEL, "-o", output, "--latency-seconds", "0.01",
                          *arguments, **options)

    def kill_after(self, output, seconds):
        """Starts a run, waits for its first checkpoint, and kills it some time later."""
        process = self.start("apply", "r.json", MODEL, "-o", output, "--resume")
        deadline = time.monotonic() + 120
        while not os.path.exists(self.path(output + ".resume/training.json")):
            if process.poll() is not None:
                break
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.002)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode == -signal.SIGKILL

    def test_a_training_that_is_killed_again_and_again_ends_in_the_same_bytes(self):
        self.check_kills()

    def test_a_network_that_shrinks_while_it_trains_ends_in_the_same_bytes(self):
        for during in ({"pass": "prune.channels_gradual", "criterion": "taylor", "rounds": 4},
                       {"pass": "prune.slimming", "epoch": 1}):
            with self.subTest(during["pass"]):
                self.write("r.json", recipe(during=[during]))
                self.check_kills()

    def check_kills(self):
        self.apply("whole.pt2")
        kills = sum(self.kill_after("killed.pt2", wait) for wait in (0.0, 0.21, 0.05, 0.4, 0.013))
        self.assertGreaterEqual(kills, 2)
        self.apply("killed.pt2", "--resume")
        self.assertEqual(self.read("killed.pt2"), self.read("whole.pt2"))
        self.assertFalse(os.path.exists(self.path("killed.pt2.resume")))

    def test_a_changed_recipe_or_number_of_threads_is_refused(self):
        self.assertTrue(self.kill_after("o.pt2", 0))
        saved = self.read("o.pt2.resume/training.json")
        self.fails(WRONG_COMMAND, "apply", "r.json", MODEL, "-o", "o.pt2", "--resume", "--set",
                   "steps.0.train.batch_size=8", says="another recipe")
        self.fails(WRONG_COMMAND, "apply", "r.json", MODEL, "-o", "o.pt2", "--resume", "--threads", "3",
                   says="--threads")
        self.assertEqual(self.read("o.pt2.resume/training.json"), saved)

    def test_a_full_disk_at_a_checkpoint_keeps_the_last_one(self):
        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))

        self.apply("whole.pt2")
        self.assertTrue(self.kill_after("o.pt2", 0))
        folder = self.path("o.pt2.resume")
        saved = {name: self.read(os.path.join("o.pt2.resume", name)) for name in os.listdir(folder)}
        self.fails(RUN_FAILED, "apply", "r.json", MODEL, "-o", "o.pt2", "--resume", says="o.pt2.resume",
                   preexec_fn=small_files)
        for name, content in saved.items():
            if not name.startswith(".") and ".tmp" not in name:
                self.assertEqual(self.read(os.path.join("o.pt2.resume", name)), content, name)
        self.apply("o.pt2", "--resume")
        self.assertEqual(self.read("o.pt2"), self.read("whole.pt2"))

    def test_stages_have_their_own_losses_teachers_and_freezing(self):
        """FitNet: hints of a wider teacher with the rest frozen, then logits; the second stage learns from a chain."""
        teacher = {"name": "big", "file": "zoo:resnet32-cifar10{seed=5}"}
        stage = {"epochs": 2, "batch_size": 16, "workers": 1, "optimizer": {"sgd": {"lr": 0.01}}}
        frozen = [{"where": "layer3.*", "freeze": True}, {"where": "linear.*", "freeze": True}]
        whole = recipe()
        whole["steps"] = [
            {"train": {**stage, "groups": frozen, "teachers": [teacher], "log": "hints.jsonl",
                       "losses": [{"hint": {"tap": "layer2", "teacher": "big"}}]}},
            {"train": {**stage, "teachers": [teacher], "log": "logits.jsonl",
                       "losses": [{"cross_entropy": {"weight": 0.1}}, {"distill_logits": {"teacher": ["big", "original"]}}]}},
        ]
        self.write("r.json", whole)
        self.apply("hints.pt2", "--stop-after", "0")
        self.apply("both.pt2")

        def lines(name):
            return [json.loads(line) for line in self.read(name).splitlines()]

        hints, logits = lines("hints.jsonl"), lines("logits.jsonl")
        self.assertEqual([set(line["terms"]) for line in hints], [{"hint"}] * 2)
        self.assertLess(hints[-1]["terms"]["hint"], hints[0]["terms"]["hint"])
        self.assertLess(logits[-1]["loss"], logits[0]["loss"])
        layers = self.json("diff", MODEL, "hints.pt2")["layers"]
        moved = {layer["name"] for layer in layers if layer["largest_difference"] > 0}
        self.assertTrue([name for name in moved if name.startswith("layer1.")], moved)
        self.assertFalse([name for name in moved if name.startswith(("layer3.", "linear."))])

    def test_a_rate_that_diverges_says_step_and_place_and_keeps_the_checkpoint(self):
        self.write("r.json", recipe(optimizer={"sgd": {"lr": 1e18}}, during=[]))
        err = self.fails(RUN_FAILED, "apply", "r.json", MODEL, "-o", "o.pt2", says="not finite")
        self.assertIn("step ", err)
        self.assertIn("lower the learning rate", err)
        self.assertFalse(os.path.exists(self.path("o.pt2")))

    def test_mistakes_are_found_before_any_work(self):
        for change, says in (
            ({"data": "trian"}, "trian"),
            ({"validation": "nothing"}, "nothing"),
            ({"optimizer": {"sgd": {"lr": -1}}}, "/steps/0/train/optimizer/sgd/lr"),
            ({"optimizer": "sdg"}, "sgd"),
            ({"schedule": {"cosine": {"finale": 0}}}, "final"),
            ({"during": [{"pass": "prune.magnitude"}]}, "does not work during training"),
            ({"during": [{"pass": "prune.gradual", "where": "no.such"}]}, "selects none"),
            ({"losses": [{"distill_logits": {"teacher": "big"}}]}, "big"),
            ({"losses": []}, "loss"),
            ({"groups": [{"where": "no.such", "lr_scale": 2}]}, "no.such"),
        ):
            self.write("r.json", recipe(**change))
            with self.subTest(change=change):
                self.fails(WRONG_COMMAND, "apply", "r.json", MODEL, "-o", "o.pt2", says=says)
                self.assertFalse(os.path.exists(self.path("o.pt2.resume")))

    def test_data_that_does_not_fit_is_named(self):
        images(self.path("data.safetensors"), classes=30)
        self.fails(WRONG_COMMAND, "apply", "r.json", MODEL, "-o", "o.pt2", says="label")
        images(self.path("data.safetensors"))
        self.write("r.json", recipe(losses=["cross_entropy", {"hint": {"tap": "layer9"}}]))
        self.fails(WRONG_COMMAND, "apply", "r.json", MODEL, "-o", "o.pt2", says="layer9")

    def test_a_step_that_trains_wants_a_hook_only_inside(self):
        self.fails(WRONG_COMMAND, "apply", "prune.gradual", MODEL, "-o", "o.pt2", says="during")


if __name__ == "__main__":
    main()
