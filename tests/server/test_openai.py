"""The openai package, unmodified, against the server."""
import base64
import io
import time
import unittest

import openai
from PIL import Image

from server import QUICK, SMALL, Server, ServerTest, main, wait_for


def decode(entry):
    return Image.open(io.BytesIO(base64.b64decode(entry.b64_json)))


def png(picture):
    out = io.BytesIO()
    picture.save(out, "PNG")
    out.name = "picture.png"
    out.seek(0)
    return out


def gradient(width=32, height=32):
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x * 255 // width, y * 255 // height, 128) for y in range(height) for x in range(width)])
    return picture


class OpenAI(ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)
        cls.model = cls.client.models.list().data[0].id

    def test_b64(self):
        reply = self.client.images.generate(model=self.model, prompt="a cat", n=2, size="32x32",
                                            extra_body={"seed": 3, "num_inference_steps": 2})
        self.assertEqual(len(reply.data), 2)
        first, second = map(decode, reply.data)
        self.assertEqual((first.size, first.format), ((32, 32), "PNG"))
        self.assertNotEqual(first.tobytes(), second.tobytes())
        again = self.client.images.generate(prompt="a cat", size="32x32", extra_body={"seed": 4, "num_inference_steps": 2})
        self.assertEqual(decode(again.data[0]).tobytes(), second.tobytes())

    def test_url_and_formats(self):
        for name in ("jpeg", "webp", "png"):
            reply = self.client.images.generate(prompt="a cat", response_format="url", output_format=name, extra_body=QUICK)
            path = reply.data[0].url.removeprefix(self.server.url)
            status, headers, data = self.server.request(path)
            self.assertEqual((status, headers["Content-Type"]), (200, f"image/{name}"))
            self.assertEqual(Image.open(io.BytesIO(data)).format, name.upper())

    def test_stream(self):
        events = list(self.client.images.generate(prompt="a cat", size="64x64", stream=True, partial_images=2,
                                                  extra_body={"seed": 1, "num_inference_steps": 400}))  # previews come every 40 ms
        self.assertEqual([e.type for e in events], ["image_generation.partial_image"] * 2 + ["image_generation.completed"])
        self.assertEqual([e.partial_image_index for e in events[:2]], [0, 1])
        self.assertEqual({decode(e).size for e in events}, {(64, 64)})

    def test_edit(self):
        picture = gradient()
        reply = self.client.images.edit(image=png(picture), prompt="a cat", extra_body={"seed": 1, "num_inference_steps": 4,
                                                                                        "strength": 0.5})
        self.assertEqual(decode(reply.data[0]).size, picture.size)
        self.assertNotEqual(decode(reply.data[0]).tobytes(), picture.tobytes())

    def test_edit_keeps_what_the_mask_covers(self):
        picture = gradient(64, 64)
        mask = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        mask.paste((0, 0, 0, 0), (32, 0, 64, 64))  # the right half is transparent: it changes
        reply = self.client.images.edit(image=png(picture), mask=png(mask), prompt="a cat",
                                        extra_body={"seed": 1, "num_inference_steps": 4, "strength": 0.9})
        made = decode(reply.data[0]).convert("RGB")
        left, right = (0, 0, 32, 64), (32, 0, 64, 64)
        self.assertEqual(made.crop(left).tobytes(), picture.crop(left).tobytes())
        self.assertNotEqual(made.crop(right).tobytes(), picture.crop(right).tobytes())

    def test_videos(self):
        job = self.client.videos.create(prompt="a cat", size="32x32", seconds="1",
                                        extra_body={"num_inference_steps": 2, "seed": 5})
        self.assertIn(job.status, ("queued", "in_progress"))
        done = wait_for(lambda: (lambda v: v if v.status == "completed" else None)(self.client.videos.retrieve(job.id)))
        self.assertEqual(done.progress, 100)
        self.assertIn(job.id, [v.id for v in self.client.videos.list(limit=5)])
        data = self.client.videos.download_content(job.id).read()
        self.assertEqual(data[4:8], b"ftyp")
        for variant in ("thumbnail", "spritesheet"):
            small = Image.open(io.BytesIO(self.client.videos.download_content(job.id, variant=variant).read()))
            self.assertEqual(small.format, "JPEG")
        self.client.videos.delete(job.id)
        with self.assertRaises(openai.NotFoundError):
            self.client.videos.retrieve(job.id)

    def test_errors(self):
        for body, kind, text in (
                ({"size": "33x32"}, openai.BadRequestError, "multiple of 16"),
                ({"size": "big"}, openai.BadRequestError, "WIDTHxHEIGHT"),
                ({"size": "32x32", "model": "gpt-image-1"}, openai.NotFoundError, "gpt-image-1"),
                ({"size": "32x32", "extra_body": {"num_steps": 3}}, openai.BadRequestError, "num_steps")):
            with self.assertRaises(kind) as caught:
                self.client.images.generate(prompt="a cat", **body)
            self.assertIn(text, str(caught.exception))


class Keys(unittest.TestCase):
    def test_keys(self):
        with Server("--model-path", SMALL, "--api-key", "secret-1") as server:
            good = openai.OpenAI(base_url=server.url + "/v1", api_key="secret-1", max_retries=0)
            bad = openai.OpenAI(base_url=server.url + "/v1", api_key="secret-2", max_retries=0)
            self.assertEqual(len(good.models.list().data), 1)
            with self.assertRaises(openai.AuthenticationError):
                bad.models.list()
            self.assertNotIn("secret", server.errors())
            self.assertEqual(server.status("/health"), 200)


if __name__ == "__main__":
    main()
