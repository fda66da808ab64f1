#!/usr/bin/env python3
"""The program of a build with DK_MEDIA=OFF: it computes, and says what it cannot do."""
import json
import os

from command import SMALL, SMALL_FLAGS, CommandTest, main


class NoMedia(CommandTest):
    def test_generate(self):
        self.fails(5, ["this build has no picture and video files", "--save-output false"], "generate", *SMALL_FLAGS,
                   "--prompt", "x", "--output-path", self.path("out"))
        self.fails(5, ["this build has no picture"], "replay", os.path.join(SMALL, "model_index.json"))
        done = self.passes("generate", *SMALL_FLAGS, "--prompt", "x", "--num-frames", "5", "--save-output", "false", "--json")
        self.assertEqual(len(json.loads(done.stdout)["results"][0]["outputs"][0]["frames_sha256"]), 64)
        self.assertEqual(os.listdir(self.folder), [])

    def test_names(self):
        self.fails(5, ["this build has no downloads"], "inspect", "org/name")
        self.fails(3, ["no such folder"], "inspect", "/nonexistent")

    def test_others(self):
        self.assertIn("WanPipeline", self.passes("inspect", SMALL).stdout)
        self.passes("selftest", timeout=600)
        self.passes("bench", "linear", "--m", 64, "--n", 64, "--k", 64)
        self.passes("bench", "model", "--config", SMALL, "--width", 32, "--height", 32)
        self.passes("convert", SMALL, self.path("half"))


if __name__ == "__main__":
    main()
