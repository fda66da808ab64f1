"""What requests may say, as JSON and as forms, and what errors tell."""
import base64
import io
import json
import os
import shutil
import subprocess
import unittest

import requests
from PIL import Image

from server import QUICK, ROOT, SMALL, Server, ServerTest, main

HOSTILE = os.path.join(ROOT, "tests/hostile/image")


def png_bytes(picture):
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def gradient(width=32, height=32):
    picture = Image.new("RGB", (width, height))
    picture.putdata([(x * 255 // width, y * 255 // height, 128) for y in range(height) for x in range(width)])
    return picture


def opened(entry):
    return Image.open(io.BytesIO(base64.b64decode(entry["b64_json"])))


class Spellings(ServerTest):
    """The same request as JSON, as a form, by curl and by `requests`."""

    def test_video_generations_as_the_sglang_guide_has_it(self):
        body = {"prompt": "a cat walks", "num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 2,
                "guidance_scale": 5.0, "seed": 1024}
        reply = requests.post(self.server.url + "/v1/videos/generations", json=body, timeout=60)
        self.assertEqual(reply.status_code, 200, reply.text)
        job = reply.json()
        self.assertEqual((job["object"], job["status"], job["progress"], job["seed"]), ("video", "completed", 100, 1024))
        self.assertEqual({k: job["parameters"][k] for k in body}, body)
        form = requests.post(self.server.url + "/v1/videos/generations", files={k: (None, str(v)) for k, v in body.items()}, timeout=60)
        self.assertEqual(form.status_code, 200, form.text)
        self.assertEqual(form.json()["outputs"][0]["recipe"]["frames_sha256"], job["outputs"][0]["recipe"]["frames_sha256"])
        again = self.server.json("/v1/videos/generations", job["parameters"])
        self.assertEqual(again["outputs"][0]["recipe"]["frames_sha256"], job["outputs"][0]["recipe"]["frames_sha256"])

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl(self):
        url = self.server.url + "/v1/images/generations"
        words = [f"{name}={value}" for name, value in {"prompt": "ein Käse", "seed": 7, **QUICK}.items()]

        def curl(*more):
            done = subprocess.run(["curl", "-sS", "--fail-with-body", url, *more], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            return json.loads(done.stdout)["data"][0]["b64_json"]
        plain = curl("-H", "Content-Type: application/json", "-d", json.dumps({"prompt": "ein Käse", "seed": 7, **QUICK}))
        self.assertEqual(plain, curl(*[x for word in words for x in ("-F", word)]))
        self.assertEqual(plain, curl(*[x for word in words for x in ("--data-urlencode", word)]))

    def test_videos_answer_at_once(self):
        job = self.server.json("/v1/videos", {"prompt": "x", "num_frames": 5, "seed": 1, **QUICK})
        self.assertIn(job["status"], ("queued", "in_progress", "completed"))
        done = self.server.wait_job(job)
        self.assertEqual((done["status"], done["size"]), ("completed", "32x32"))
        self.assertGreaterEqual(done["completed_at"], done["created_at"])
        self.assertGreater(done["expires_at"], done["completed_at"])

    def test_seconds_and_frames(self):
        job = self.server.json("/v1/videos/generations", {"prompt": "x", "seconds": "0.5", "fps": 10, **QUICK})
        self.assertEqual((job["parameters"]["num_frames"], job["seconds"]), (5, "0.5"))

    def test_size_as_text(self):
        job = self.server.json("/v1/videos/generations", {"prompt": "x", "size": "48x32", "num_inference_steps": 1, "num_frames": 1,
                                                          "output_format": "gif"})
        self.assertEqual(job["size"], "48x32")
        self.assertEqual(self.refused(400, "differ", "/v1/videos", {"prompt": "x", "size": "48x32", "width": 32})["param"], "size")

    def test_nothing_but_the_prompt(self):
        self.assertEqual(self.refused(400, "prompt is missing", "/v1/videos", {})["param"], "prompt")
        self.refused(400, "the body", "/v1/videos", b"", headers={"Content-Type": "application/json"})

    def test_null_is_as_if_left_out(self):
        reply = self.picture(negative_prompt=None, seed=None, size=None, n=None, response_format=None)
        self.assertEqual(len(reply["data"]), 1)


class Seeds(ServerTest):
    def seeds(self, **more):
        return [entry["seed"] for entry in self.picture(**more)["data"]]

    def form_seeds(self, **more):
        body = {"prompt": "a cat", **QUICK, **more}
        reply = requests.post(self.server.url + "/v1/images/generations", files={k: (None, str(v)) for k, v in body.items()}, timeout=60)
        self.assertEqual(reply.status_code, 200, reply.text)
        return [entry["seed"] for entry in reply.json()["data"]]

    def test_lists(self):
        self.assertEqual(self.seeds(seed=[1, 5]), [1, 5])
        self.assertEqual(self.seeds(seed=["1", 5], n=2), [1, 5])
        self.assertEqual(self.form_seeds(seed="[1, 2]"), [1, 2])
        self.assertEqual(self.seeds(seed=9, n=3), [9, 10, 11])
        self.assertEqual(self.form_seeds(seed="9", n="2"), [9, 10])

    def test_large_seeds_survive(self):
        largest = 2**64 - 1
        self.assertEqual(self.seeds(seed=2**53 - 1), [2**53 - 1])
        self.assertEqual(self.seeds(seed=2**53 + 1), [str(2**53 + 1)])
        self.assertEqual(self.seeds(seed=str(largest)), [str(largest)])
        self.assertEqual(self.form_seeds(seed=f'[{2**60}, "{largest}"]'), [str(2**60), str(largest)])
        job = self.server.json("/v1/images/" + self.picture(seed=str(largest))["id"])
        self.assertEqual((job["seed"], job["parameters"]["seed"]), (str(largest), str(largest)))
        self.assertEqual(self.seeds(seed=job["parameters"]["seed"]), [str(largest)])

    def test_seeds_make_the_picture(self):
        both = self.picture(seed=[3, 4])["data"]
        self.assertNotEqual(both[0]["b64_json"], both[1]["b64_json"])
        self.assertEqual(self.picture(seed=4)["data"][0]["b64_json"], both[1]["b64_json"])

    def test_a_job_of_many_seeds_can_be_sent_again(self):
        job = self.server.json("/v1/images/" + self.picture(seed=[2**60, 4])["id"])
        self.assertEqual(job["seeds"], [str(2**60), 4])
        self.assertEqual(self.server.json("/v1/images/generations", job["parameters"])["data"][0]["seed"], str(2**60))

    def test_without_a_seed_pictures_differ(self):
        self.assertNotEqual(self.seeds(seed=None), self.seeds(seed=None))

    def test_refused(self):
        for seed in (-1, 1.5, "x", "", [], [1, -2], list(range(11)), {"a": 1}, "[1, 2", 2**64, str(2**64), True, [[1]]):
            if seed == "":
                continue  # an empty field of a form: none
            status, _, data = self.server.request("/v1/images/generations", {"prompt": "x", "seed": seed, **QUICK})
            self.assertEqual(status, 400, (seed, data))
        self.assertEqual(self.refused(400, "one seed per output", "/v1/images/generations", {"prompt": "x", "seed": [1, 2], "n": 3})["param"], "seed")


class Formats(ServerTest):
    def test_pictures(self):
        for name, magic in (("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
            reply = self.picture(output_format=name)
            self.assertTrue(base64.b64decode(reply["data"][0]["b64_json"]).startswith(magic))
            self.assertEqual((reply["output_format"], reply["size"], reply["background"]), (name, "32x32", "opaque"))
            self.assertEqual(opened(reply["data"][0]).size, (32, 32))

    def test_videos(self):
        for name, magic, kind in (("mp4", b"ftyp", "video/mp4"), ("webm", b"\x1aE\xdf\xa3", "video/webm"), ("gif", b"GIF8", "image/gif")):
            job = self.server.json("/v1/videos/generations", {"prompt": "x", "num_frames": 5, "seed": 1, "output_format": name, **QUICK})
            status, headers, data = self.server.request(job["outputs"][0]["url"])
            self.assertEqual((status, headers["Content-Type"]), (200, kind))
            self.assertIn(magic, data[:12])
            self.assertEqual(job["outputs"][0]["bytes"], len(data))

    def test_quality_changes_the_size(self):
        for name in ("jpeg", "webp"):
            sizes = [len(self.picture(output_format=name, width=64, height=64, **q)["data"][0]["b64_json"])
                     for q in ({"output_quality": 5}, {"output_quality": 95}, {"output_compression": 5}, {"quality": "low"}, {"quality": "high"})]
            self.assertLess(sizes[0] * 1.5, sizes[1])
            self.assertEqual(sizes[0], sizes[2])
            self.assertLess(sizes[3], sizes[4])

    def test_url_or_b64(self):
        made = self.picture(response_format="url")["data"][0]
        self.assertNotIn("b64_json", made)
        self.assertTrue(made["url"].startswith(self.server.url + "/v1/images/image_"))
        self.assertEqual(requests.get(made["url"], timeout=10).content, base64.b64decode(self.picture()["data"][0]["b64_json"]))
        self.assertNotIn("url", self.picture(response_format="b64_json")["data"][0])

    def test_only_opaque_pictures(self):
        error = self.refused(400, "auto, opaque", "/v1/images/generations", {"prompt": "x", "background": "transparent", **QUICK})
        self.assertEqual(error["param"], "background")
        self.assertEqual(self.picture(background="opaque")["background"], "opaque")

    def test_formats_of_the_other_kind_are_refused(self):
        self.assertEqual(self.refused(400, "png, jpeg, webp", "/v1/images/generations", {"prompt": "x", "output_format": "mp4"})["param"],
                         "output_format")
        self.assertEqual(self.refused(400, "mp4, webm, gif", "/v1/videos", {"prompt": "x", "output_format": "png"})["param"], "output_format")

    def test_async(self):
        for path in ("/v1/images/generations", "/v1/videos/generations"):
            job = self.server.json(path, {"prompt": "x", "async": True, "num_frames": 1, **QUICK}, expect=202)
            self.assertIn(job["status"], ("queued", "in_progress", "completed"))
            self.assertEqual(self.server.wait_job(job)["status"], "completed")


class Edits(ServerTest):
    """Pictures in bodies."""
    QUICK_EDIT = {"prompt": "a cat", "seed": 1, "num_inference_steps": 4, "strength": 0.5}

    def edit(self, expect=200, **more):
        return self.server.json("/v1/images/edits", {**self.QUICK_EDIT, **more}, expect=expect)

    def test_spellings_of_a_picture(self):
        data = png_bytes(gradient())
        text = base64.b64encode(data).decode()
        url = "data:image/png;base64," + text
        form = requests.post(self.server.url + "/v1/images/edits", files={"image": ("a.png", data, "image/png")}, data=self.QUICK_EDIT, timeout=60)
        self.assertEqual(form.status_code, 200, form.text)
        want = form.json()["data"][0]["b64_json"]
        for image in (text, url, {"image_url": url}, [{"image_url": url}], [url]):
            self.assertEqual(self.edit(image=image)["data"][0]["b64_json"], want, str(image)[:40])
        self.assertEqual(self.edit(images=[{"image_url": url}])["data"][0]["b64_json"], want)
        listed = requests.post(self.server.url + "/v1/images/edits", files={"image[]": ("a.png", data, "image/png")}, data=self.QUICK_EDIT, timeout=60)
        self.assertEqual(listed.json()["data"][0]["b64_json"], want)

    def test_input_reference(self):
        job = requests.post(self.server.url + "/v1/videos", files={"input_reference": ("a.png", png_bytes(gradient()), "image/png")},
                            data={**self.QUICK_EDIT, "num_frames": 5}, timeout=60).json()
        done = self.server.wait_job(job)
        self.assertEqual((done["status"], done["size"]), ("completed", "32x32"))

    def test_mask_without_alpha(self):
        """White changes, black stays."""
        picture, mask = gradient(64, 64), Image.new("RGB", (64, 64), (0, 0, 0))
        mask.paste((255, 255, 255), (32, 0, 64, 64))
        reply = self.edit(image=base64.b64encode(png_bytes(picture)).decode(), mask=base64.b64encode(png_bytes(mask)).decode(), strength=0.9)
        made = opened(reply["data"][0]).convert("RGB")
        self.assertEqual(made.crop((0, 0, 32, 64)).tobytes(), picture.crop((0, 0, 32, 64)).tobytes())
        self.assertNotEqual(made.crop((32, 0, 64, 64)).tobytes(), picture.crop((32, 0, 64, 64)).tobytes())

    def test_what_does_not_go(self):
        text = base64.b64encode(png_bytes(gradient())).decode()
        for more, param in (({}, "image"), ({"mask": text}, "image"), ({"image": "%%%"}, "image"), ({"image": 7}, "image"), ({"image": ""}, "image"),
                            ({"image": text, "mask": "%"}, "mask"), ({"image": []}, "image"), ({"image": text, "strength": 0}, "strength"),
                            ({"image": text, "strength": 1.5}, "strength"), ({"image": "data:text/html,hello"}, "image")):
            reply = self.edit(expect=400, **more) if more.get("image") != "data:text/html,hello" else None
            if reply is None:
                status, _, data = self.server.request("/v1/images/edits", {**self.QUICK_EDIT, **more})
                self.assertIn(status, (400, 422))
                reply = json.loads(data)
            self.assertEqual(reply["error"]["param"], param, (more, reply))

    def test_hostile_pictures(self):
        with open(os.path.join(HOSTILE, "cases.json"), encoding="utf-8") as file:
            cases = json.load(file)["cases"]
        for case in cases:
            with open(os.path.join(HOSTILE, os.path.basename(case["path"])), "rb") as file:
                data = file.read()
            reply = requests.post(self.server.url + "/v1/images/edits", files={"image": ("x.png", data)},
                                  data={**self.QUICK_EDIT, "width": 32, "height": 32, "num_inference_steps": 2}, timeout=60)
            with self.subTest(case["path"]):
                if case["expected"] == "reject":
                    self.assertIn(reply.status_code, (400, 413, 415, 422), reply.text[:300])
                    self.assertEqual(reply.json()["error"]["param"], "image")
                else:
                    self.assertIn(reply.status_code, (200, 400, 422) if case["expected"] != "accept" else (200,), reply.text[:300])
        self.assertEqual(self.server.status("/health"), 200)

    def test_recipes_tell_no_folder_of_the_server(self):
        reply = self.edit(image=base64.b64encode(png_bytes(gradient())).decode())
        job = self.server.json("/v1/images/" + reply["id"])
        self.assertEqual(job["outputs"][0]["recipe"]["image_path"], "input-image.png")
        self.assertNotIn(self.server.store, json.dumps(job))
        self.assertNotIn(self.server.store.encode(), base64.b64decode(reply["data"][0]["b64_json"]))

    def test_urls_are_off(self):
        error = self.refused(400, "--allowed-url-hosts", "/v1/images/edits", {**self.QUICK_EDIT, "image": "http://example.org/a.png"})
        self.assertEqual(error["param"], "image")


class Urls(ServerTest):
    FLAGS = ("--model-path", SMALL, "--allowed-url-hosts", "pictures.example.org, 127.0.0.1")

    def test_only_named_hosts_and_public_addresses(self):
        for url in ("http://other.example.org/a.png", "http://example.org/a.png", "http://127.0.0.1:1/a.png", self.server.url + "/icon.svg",
                    "https://pictures.example.org@evil.org/a.png", "http://[::1]/a.png", "http://"):
            status, _, data = self.server.request("/v1/images/edits", {"prompt": "x", "image": url, "strength": 0.5})
            self.assertIn(status, (400, 401, 404, 502), (url, data))
            self.assertEqual(json.loads(data)["error"]["param"], "image")


class Errors(ServerTest):
    """Errors name the field and say what is accepted."""

    def test_fields(self):
        for more, param, text in (
                ({"width": "wide"}, "width", "from 1 to 8192"), ({"width": 0}, "width", "from 1 to 8192"),
                ({"width": 8193}, "width", "from 1 to 8192"), ({"width": 33}, "width", "multiple of"),
                ({"width": 32.5}, "width", "accepted"), ({"width": [32]}, "width", "accepted"), ({"width": True}, "width", "accepted"),
                ({"num_inference_steps": 1001}, "num_inference_steps", "from 1 to 1000"), ({"guidance_scale": "much"}, "guidance_scale", "accepted"),
                ({"sampler": "ddim"}, "sampler", "euler, unipc"), ({"prompt": 7}, "prompt", "accepted"), ({"prompt": "x" * 65537}, "prompt", "65536"),
                ({"n": 11}, "n", "from 1 to 10"), ({"n": 0}, "n", "from 1 to 10"), ({"priority": 11}, "priority", "from -10 to 10"),
                ({"timeout_s": -1}, "timeout_s", "accepted"), ({"stream": "perhaps"}, "stream", "true"), ({"size": "0x32"}, "size", "WIDTHxHEIGHT"),
                ({"size": "32x32x32"}, "size", "WIDTHxHEIGHT"), ({"output_quality": 101}, "output_quality", "from 0 to 100"),
                ({"num_frames": 5}, "num_frames", "for videos"), ({"widht": 32}, "widht", "did you mean width?"),
                ({"nonsense_and_more": 1}, "nonsense_and_more", "unknown field"), ({"image_path": "/etc/passwd"}, "image_path", "unknown field"),
                ({"dump_tensors": "/tmp/x"}, "dump_tensors", "unknown field"), ({"initial_latents": "/etc/passwd"}, "initial_latents", "unknown"),
                ({"ü" * 200: 1}, None, "unknown field")):
            status, _, data = self.server.request("/v1/images/generations", {"prompt": "x", **QUICK, **more})
            error = json.loads(data)["error"]
            self.assertEqual(status, 400, (more, data))
            self.assertIn(text, error["message"], more)
            if param is not None:
                self.assertEqual(error["param"], param, more)
            self.assertEqual(error["type"], "invalid_request_error")

    def test_bodies(self):
        path, plain = "/v1/images/generations", {"Content-Type": "application/json"}
        for body, text in ((b"{", "the body"), (b"[]", "expected an object"), (b"\xff", "the body"), (b'{"prompt": "a", "prompt": "b"}', "the body"),
                           (b'{"prompt": "a\\u0000b"}', "the body"), (b"[" * 100, "the body"), (b'{"prompt": NaN}', "the body")):
            self.refused(400, text, path, body, headers=plain)
        status, _, _ = self.server.request(path, b"<x/>", headers={"Content-Type": "text/xml"})
        self.assertIn(status, (400, 415))

    def test_forms(self):
        url = self.server.url + "/v1/images/generations"
        for files, text in (({"prompt": (None, b"\xff\xfe")}, "UTF-8"), ({"prompt": (None, "x"), "width": (None, "wide")}, "width is 'wide'"),
                            ({"prompt": (None, "x"), "widht": (None, "3")}, "did you mean width?")):
            reply = requests.post(url, files=files, timeout=30)
            self.assertEqual(reply.status_code, 400, reply.text)
            self.assertIn(text, reply.json()["error"]["message"])
        reply = requests.post(url, data=b"--x\r\nbroken", headers={"Content-Type": "multipart/form-data; boundary=x"}, timeout=30)
        self.assertEqual(reply.status_code, 400)
        reply = requests.post(url, data=b"x", headers={"Content-Type": "multipart/form-data"}, timeout=30)
        self.assertEqual(reply.status_code, 400)

    def test_models(self):
        name = self.server.json("/v1/models")["data"][0]["id"]
        self.assertEqual(len(self.picture(model=name)["data"]), 1)
        error = self.refused(404, "is not served", "/v1/images/generations", {"prompt": "x", "model": "other", **QUICK})
        self.assertEqual((error["param"], error["code"]), ("model", "model_not_found"))

    def test_lora_is_not_there_yet(self):
        for path in ("/v1/set_lora", "/v1/merge_lora_weights", "/v1/unmerge_lora_weights"):
            self.assertEqual(self.refused(501, "LoRA", path, {"lora_path": "x"})["code"], "lora_not_supported")
        self.refused(501, "LoRA", "/v1/list_loras")

    def test_routes_and_methods(self):
        self.refused(404, "", "/v1/nothing")
        status, headers, _ = self.server.request("/v1/models", {"x": 1})
        self.assertEqual(status, 405)
        self.assertIn("GET", headers["Allow"])
        self.assertEqual(self.server.request("/v1/models", method="HEAD")[0], 200)


class Limits(unittest.TestCase):
    def test_bodies_that_are_too_long(self):
        with Server("--model-path", SMALL, "--max-body-mb", 1) as server:
            status, _, data = server.request("/v1/images/generations", {"prompt": "x" * 1100000})
            self.assertEqual(status, 413)
            self.assertIn("1", json.loads(data)["error"]["message"])
            status, _, _ = server.request("/v1/images/generations", {"prompt": "x" * 60000, **QUICK})
            self.assertEqual(status, 200)

    def test_pixels(self):
        with Server("--model-path", SMALL, "--max-pixels", 4096) as server:
            status, _, data = server.request("/v1/images/generations", {"prompt": "x", "size": "96x64"})
            error = json.loads(data)["error"]
            self.assertEqual((status, error["param"]), (400, "size"))
            self.assertIn("--max-pixels", error["message"])
            server.json("/v1/images/generations", {"prompt": "x", "size": "64x64", "num_inference_steps": 1})


if __name__ == "__main__":
    main()
