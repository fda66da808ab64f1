"""darkroom encode: raw frames become files that carry their recipe."""
import json
import os
import zlib

from command import CommandTest, main, png_chunks


class Encode(CommandTest):
    def frames(self, count, height=16, width=24):
        data = bytes((x * 7 + y * 3 + c * 50 + n) % 256 for n in range(count) for y in range(height) for x in range(width) for c in range(3))
        with open(self.path("frames.rgb"), "wb") as file:
            file.write(data)
        return data

    def flags(self, **more):
        flags = {"frames": self.path("frames.rgb"), "width": 24, "height": 16, "output-file": self.path("out.png"), **more}
        return ["encode", *(f"--{name}={value}" for name, value in flags.items() if value is not None)]

    def test_png(self):
        data, recipe = self.frames(1), self.write("recipe.json", json.dumps({"prompt": "käfer"}))
        self.passes(*self.flags(recipe=recipe))
        with open(self.path("out.png"), "rb") as file:
            chunks = list(png_chunks(file.read()))
        self.assertIn(b'darkroom\0\0\0\0\0{"prompt": "k\\u00e4fer"}', dict(chunks)[b"iTXt"])
        raw = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
        self.assertEqual(len(raw), len(data) + 16)

    def test_every_format(self):
        self.frames(1)
        for name in ("jpg", "jpeg", "webp"):
            self.passes(*self.flags(**{"output-file": self.path(f"out.{name}"), "output-quality": 90}))
        self.frames(3)
        for name in ("mp4", "webm", "gif"):
            self.passes(*self.flags(**{"output-file": self.path(f"out.{name}"), "num-frames": 3, "fps": 8}))
            self.assertGreater(os.path.getsize(self.path(f"out.{name}")), 100)

    def test_refused(self):
        self.frames(2)
        self.fails(4, ["frames.rgb has 2304 bytes, expected 1152"], *self.flags())
        self.fails(2, ["2 frames do not fit", "mp4"], *self.flags(**{"num-frames": 2}))
        self.fails(2, ["needed are --frames"], *self.flags(frames=None))
        self.fails(2, ["unknown file format"], *self.flags(**{"output-file": self.path("out.bmp")}))
        self.fails(2, ["--width", "1 to 65535"], *self.flags(width=0))
        self.fails(3, ["none.rgb"], *self.flags(frames=self.path("none.rgb")))
        self.fails(6, ["none/out.mp4"], *self.flags(**{"output-file": self.path("none/out.mp4"), "num-frames": 2}))
        self.assertEqual(sorted(os.listdir(self.folder)), ["frames.rgb"])


main()
