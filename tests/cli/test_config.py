#!/usr/bin/env python3
"""--config: JSON and YAML files of flags; the command line wins."""
import json
import os

from command import SMALL, CommandTest, main, run

YAML = f"""
# everything that the small model needs
model-path: {SMALL}
width: 32
height: "32"
num_inference_steps: 2
num-frames: 5
guidance_scale: 2.5
prompt: 'a "quoted" prompt: with signs'
seed: 18446744073709551615
save_output: false
json: true
sampler: null
output-format: gif
"""
JSON = {"model_path": SMALL, "width": 32, "height": 32, "num-inference-steps": 2, "num_frames": 5, "guidance_scale": 2.5,
        "prompt": 'a "quoted" prompt: with signs', "seed": "18446744073709551615", "save-output": False, "json": True,
        "sampler": None}


class Config(CommandTest):
    def recipe(self, *args):
        result = json.loads(self.passes("generate", *args, cwd=self.folder).stdout)
        return result["results"][0]["outputs"][0]["recipe"]

    def test_both_formats_say_the_same(self):
        yaml = self.recipe("--config", self.write("c.yaml", YAML))
        self.assertEqual(yaml["prompt"], 'a "quoted" prompt: with signs')
        self.assertEqual((yaml["seed"], yaml["num_frames"], yaml["guidance_scale"]), ("18446744073709551615", 5, 2.5))
        self.assertEqual(self.recipe("--config", self.write("c.json", json.dumps(JSON))), yaml)

    def test_the_examples_of_the_documentation(self):
        docs = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs", "examples")
        small = ["--num-inference-steps", 1, "--width", 64, "--height", 64, "--output-path", self.folder]
        done = self.passes("generate", "--config", f"{docs}/night.yaml", "--num-frames", 1, "--output-format", "png", *small)
        self.assertEqual(done.stdout.strip(), f"{self.folder}/a-white-ring-moving-up-over-a-night-sky-7.png")
        done = self.passes("generate", "--prompt-file-path", f"{docs}/prompts.txt", "--num-frames", 1, *small)
        self.assertEqual(len(done.stdout.splitlines()), 3)

    def test_the_command_line_wins(self):
        path = self.write("c.yml", YAML)
        for args in (["--seed", 3, "--config", path], ["--config", path, "--seed=3"]):
            self.assertEqual(self.recipe(*args)["seed"], "3")

    def test_refusals(self):
        cases = [
            ("c.yaml", "widht: 3", 2, ["c.yaml", "'widht'", "did you mean width?"]),
            ("c.json", '{"wobble": 3}', 2, ["c.json", "'wobble'"]),
            ("c.json", '{"width": "128"}', 2, ["c.json: width", '"128"', "1 to 8192"]),
            ("c.json", '{"width": 0}', 2, ["c.json: width is 0"]),
            ("c.json", '{"prompt": 3}', 2, ["prompt is 3", "a text"]),
            ("c.json", '{"save_output": "yes"}', 2, ["save_output", "true, false"]),
            ("c.json", '{"width": 1, "width": 2}', 4, ["c.json"]),
            ("c.json", '[1]', 4, ["expected an object"]),
            ("c.json", '{"config": "other.json"}', 2, ["config"]),
            ("c.yaml", "width: [1, 2]", 4, ["line 1"]),
            ("c.yaml", "width:\n  nested: 1", 4, ["line 2"]),
            ("c.yaml", "- width", 4, ["line 1"]),
            ("c.yaml", "width: 1\nwidth: 2", 4, ["second 'width'"]),
            ("c.yaml", "a: &x 1\nwidth: *x", 4, ["line 2"]),
            ("c.yaml", "width: 'unclosed", 4, ["c.yaml"]),
            ("c.yaml", "width: 12q", 2, ["c.yaml: width is '12q'"]),
        ]
        for name, text, code, parts in cases:
            with self.subTest(text=text):
                self.fails(code, parts, "generate", "--prompt", "x", "--config", self.write(name, text))
        self.fails(3, ["none.yaml"], "generate", "--prompt", "x", "--config", self.path("none.yaml"))

    def test_empty_files(self):
        for text in ("", "# nothing\n", "---\n"):
            done = run("generate", "--config", self.write("c.yaml", text))
            self.assertIn("--prompt is missing", done.stderr)


if __name__ == "__main__":
    main()
