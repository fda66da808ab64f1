#!/usr/bin/env python3
"""The embedded model draws what the prompt says: colour, background and motion, measured on the pixels."""
import array
import math

from command import CommandTest, main, read_safetensors
from pixels import BACKGROUNDS, COLORS, Clip

# prompt, frames, colour, background, motion
CASES = [
    ("a big red circle moving right on a green background", 9, "red", "green", "right"),
    ("a yellow circle moving left over the sea", 9, "yellow", "sea", "left"),
    ("a white square moving up over a night sky with stars", 9, "white", "night", "up"),
    ("a cyan circle moving down at sunset", 9, "cyan", "sunset", "down"),
    ("a purple heart on a yellow background", 9, "purple", "yellow", "still"),
    ("an orange circle moving left on a black background", 9, "orange", "black", "left"),
    ("a blue square moving down on a white background", 9, "blue", "white", "down"),
    ("a pink circle moving right in the night sky", 9, "pink", "night", "right"),
    ("a big red square moving up on grass", 9, "red", "grass", "up"),
    ("a green square on a pink background", 1, "green", "pink", "still"),
]


def differences(seen, color, background, motion):
    return [name for name, wanted in (("color", color), ("background", background), ("motion", motion)) if seen[name] != wanted]


def draw(color, background, move, frames=9, side=60, radius=12):
    """A disc that moves by `move` = (x, y) shares of the picture over the clip, without any model."""
    values = []
    for frame in range(frames):
        t = frame / max(1, frames - 1) - 0.5
        cx, cy = side * (0.5 + move[0] * t), side * (0.5 + move[1] * t)
        for y in range(side):
            band = BACKGROUNDS[background][0 if y < side * 0.3 else 1 if y < side * 0.8 else 2]
            for x in range(side):
                values.extend(COLORS[color] if math.hypot(x - cx, y - cy) < radius else band)
    return Clip(values, frames, side, side)


class Pictures(CommandTest):
    seen = []

    def test_1_the_measure_itself(self):
        moves = {"left": (-0.25, 0), "right": (0.25, 0), "up": (0, -0.25), "down": (0, 0.25), "still": (0, 0)}
        for i, (motion, move) in enumerate(moves.items()):
            color, background = list(COLORS)[2 * i], ["night", "sea", "sunset", "grass", "blue"][i]
            self.assertEqual(draw(color, background, move).describe(),
                             {"color": color, "background": background, "motion": motion})
        blank = draw("red", "red", (0, 0)).describe()
        self.assertEqual((blank["color"], blank["motion"]), (None, None))
        slanted = draw("red", "white", (0.2, 0.2)).describe()
        self.assertIsNone(slanted["motion"])

    def look(self, i, *more):
        """What the picture of case i shows."""
        prompt, frames = CASES[i][:2]
        dump = self.path("dump.safetensors")
        self.passes("generate", "--prompt", prompt, "--num-frames", frames, "--seed", i, "--num-inference-steps", 12,
                    "--save-output=false", "--dump-tensors", dump, *more)
        header, data = read_safetensors(dump)
        shape, (start, end) = header["frames"]["shape"], header["frames"]["data_offsets"]
        self.assertEqual(shape, [1, frames, 128, 128, 3])
        values = array.array("f")
        values.frombytes(data[start:end])
        return Clip(values, *shape[1:4]).describe()

    def test_2_prompts(self):
        for i, (prompt, _, *wanted) in enumerate(CASES):
            with self.subTest(prompt=prompt):
                seen = self.look(i)
                self.seen.append(seen)
                self.assertEqual(differences(seen, *wanted), [], (prompt, seen))

    def test_2_prompts_in_int8(self):
        for i, (prompt, _, *wanted) in enumerate(CASES):
            with self.subTest(prompt=prompt):
                seen = self.look(i, "--quantization", "int8", "--attention-backend", "sage")
                self.assertEqual(differences(seen, *wanted), [], (prompt, seen))

    def test_3_other_expectations_fail(self):
        """What was seen for one prompt fits no other: the checks are able to fail."""
        self.assertEqual(len(self.seen), len(CASES))
        for i, seen in enumerate(self.seen):
            for k, (_, _, *wanted) in enumerate(CASES):
                if i != k:
                    self.assertNotEqual(differences(seen, *wanted), [], (i, k))


if __name__ == "__main__":
    main()
