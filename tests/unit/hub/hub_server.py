"""A small model hub for test_hub.c: python3's standard library only.

    hub_server.py LOG

Listens on two ephemeral ports of 127.0.0.1, the hub and the store that it redirects large files
to, prints "HUB_PORT STORE_PORT", appends one line per request to LOG and ends when its standard
input closes. The model's name chooses what goes wrong; see MODELS and the uses of `model`.
"""

import hashlib
import json
import os
import socket
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"
ATTEMPTS = 5  # of one run of the client, before it gives up
LARGE = 200_000  # bytes; files of this size and more go over the store, like LFS files


def noise(name, size):
    """Bytes that look random and depend on the name alone."""
    block = hashlib.sha256(name.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def text(value):
    return json.dumps(value, indent=2).encode()


def base_files():
    """What a diffusers repository holds, with much that nobody needs."""
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    files = {
        "model_index.json": text({
            "_class_name": "WanPipeline",
            "_diffusers_version": "0.35.0",
            "boundary_ratio": None,
            "expand_timesteps": True,
            "image_encoder": [None, None],
            "image_processor": ["transformers", "CLIPImageProcessor"],
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            "text_encoder": ["transformers", "UMT5EncoderModel"],
            "tokenizer": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "vae": ["diffusers", "AutoencoderKLWan"],
        }),
        "image_processor/preprocessor_config.json": text({"do_resize": True}),
        "scheduler/scheduler_config.json": text({"flow_shift": 3.0}),
        "text_encoder/config.json": text({"d_model": 4096}),
        "tokenizer/tokenizer_config.json": text({"model_max_length": 512}),
        "tokenizer/special_tokens_map.json": text({"eos_token": "</s>"}),
        "tokenizer/empty.txt": b"",
        "transformer/config.json": text({"num_layers": 30}),
        "transformer/diffusion_pytorch_model.safetensors.index.json": text({
            "metadata": {}, "weight_map": {"a.weight": shards[0], "b.weight": shards[1]}}),
        "vae/config.json": text({"z_dim": 16}),
    }
    for name in ["text_encoder/model.safetensors", "tokenizer/tokenizer.json",
                 "tokenizer/spiece.model", "vae/diffusion_pytorch_model.safetensors",
                 *["transformer/" + shard for shard in shards]]:
        files[name] = noise(name, LARGE + len(name))
    for name in ["README.md", ".gitattributes", "original.safetensors", "assets/logo.png",
                 "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
                 "text_encoder/pytorch_model.bin.index.json", "text_encoder/model.onnx",
                 "text_encoder/flax_model.msgpack", "text_encoder/deep/config.json",
                 "tokenizer/picture.png", "transformer/diffusion_pytorch_model.safetensors",
                 "transformer/diffusion_pytorch_model.fp16.safetensors.index.json",
                 "vae/diffusion_pytorch_model.fp16.safetensors", "vae/sample.mp4",
                 "safety_checker/config.json", "safety_checker/model.safetensors"]:
        files[name] = noise(name, 1000)
    return files


FILES = base_files()
SHARD = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"
MODELS = {"plain", "limited", "flaky", "unavailable", "drop", "norange", "cut", "stall", "slow",
          "badsum", "badsmall", "long", "hostile", "absolute", "huge", "nosum", "noindex",
          "lost", "incomplete", "otheretag", "expired", "wrongrange", "busy", "badjson",
          "badcommit", "gated", "private", "renamed", "parallel", "spoilt"}


class State:
    lock = threading.Lock()
    seen = {}  # (what, model, path) -> how often

    @classmethod
    def count(cls, *key):
        with cls.lock:
            cls.seen[key] = cls.seen.get(key, 0) + 1
            return cls.seen[key]


def digest(data):
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listing(model):
    siblings = []
    for name, data in FILES.items():
        if (model == "noindex" and name == "model_index.json") or \
                (model == "incomplete" and name == SHARD):
            continue
        entry = {"rfilename": name, "size": len(data), "blobId": digest(data[:LARGE - 1])}
        if len(data) >= LARGE:
            entry["lfs"] = {"sha256": digest(data), "size": len(data), "pointerSize": 134}
        if name == SHARD and model == "huge":
            entry["size"] = entry["lfs"]["size"] = 1 << 60
        if name == SHARD and model == "nosum":
            del entry["lfs"], entry["blobId"]
        siblings.append(entry)
    for bad, name in (("hostile", "tokenizer/../../../../../escaped.json"),
                      ("absolute", "/escaped.json")):
        if model == bad:
            siblings.append({"rfilename": name, "size": 3, "blobId": digest(b"bad")})
    commit = "../../escape" if model == "badcommit" else COMMIT
    reply = text({"id": f"org/{model}", "sha": commit, "siblings": siblings})
    return reply[:-20] if model == "badjson" else reply


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def note(self, where):
        line = "%s %s auth=%s range=%s\n" % (where, self.path,
                                             self.headers.get("Authorization", "-"),
                                             self.headers.get("Range", "-"))
        with State.lock, open(LOG, "a") as log:
            log.write(line)

    def reply(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self):
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def send_data(self, model, name, data):
        """The content with its faults; honours Range."""
        whole = len(data)
        start = 0
        asked = self.headers.get("Range")
        if asked and model != "norange":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= whole:
                return self.reply(416, Content_Range=f"bytes */{whole}")
        attempt = State.count("data", model, name)
        body = data[start:]
        if name == SHARD and model == "badsum":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if name == SHARD and model == "long":
            body += b"more"
        if name == "vae/config.json" and model == "badsmall":
            body = body.replace(b"16", b"17")
        shown = start + 1 if model == "wrongrange" else start
        self.send_response(206 if asked and model != "norange" else 200)
        if asked and model != "norange":
            self.send_header("Content-Range", f"bytes {shown}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'W/"{digest(data)}"')
        self.end_headers()
        halves = model in ("cut", "spoilt") and attempt <= ATTEMPTS
        thirds = model in ("drop", "norange", "wrongrange") and attempt <= 2
        if name == SHARD and (halves or thirds):
            part = max(0, whole // 2 - start) if halves else whole // 3
            self.wfile.write(body[:part])
            return self.hang_up()
        if name == SHARD and model == "stall" and attempt == 1:
            self.wfile.write(body[:whole // 2])
            self.wfile.flush()
            time.sleep(4)
            return self.hang_up()
        if name == SHARD and model in ("slow", "parallel"):
            for at in range(0, len(body), 25_000):
                self.wfile.write(body[at:at + 25_000])
                self.wfile.flush()
                time.sleep(0.06)
            return None
        self.wfile.write(body)
        return None


class Hub(Handler):
    def do_GET(self):
        self.note("hub")
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 6 and parts[4] == "revision":
            return self.model_info(parts[3], "/".join(parts[5:]))
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.resolve(parts[1], parts[3], "/".join(parts[4:]))
        return self.reply(404, b"Not Found")

    def refuse(self, model):
        """True when the model's rights or its load were answered already."""
        token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if model == "gated" and not token:
            self.reply(403, X_Error_Code="GatedRepo")
        elif model == "private" and not token:
            self.reply(401, X_Error_Code="RepoNotFound")
        elif model == "limited" and State.count("info", model, "") == 1:
            self.reply(429, Retry_After="1")
        elif model == "busy":
            self.reply(429, Retry_After="100000")
        elif model == "unavailable":
            self.reply(503, b"x" * 1000)
        elif model not in MODELS:
            self.reply(404, X_Error_Code="RepoNotFound")
        else:
            return False
        return True

    def model_info(self, model, revision):
        if self.refuse(model):
            return None
        if revision not in ("main", "refs/pr/1", COMMIT):
            return self.reply(404, X_Error_Code="RevisionNotFound")
        return self.reply(200, listing(model), Content_Type="application/json")

    def resolve(self, model, commit, name):
        if self.refuse(model):
            return None
        if model == "renamed":
            return self.reply(307, Location=f"/org/plain/resolve/{commit}/{name}")
        if commit != COMMIT or name not in FILES or (model == "lost" and name == SHARD):
            return self.reply(404, X_Error_Code="EntryNotFound")
        if model == "flaky" and State.count("file", model, name) == 1:
            return self.reply(503)
        data = FILES[name]
        if len(data) < LARGE:
            return self.send_data(model, name, data)
        etag = digest(data)
        if model == "otheretag" and name == SHARD:
            etag = "0" * 64
        target = f"http://127.0.0.1:{STORE_PORT}/{model}/{urllib.parse.quote(name)}?sign=1"
        return self.reply(302, b"moved", Location=target, X_Repo_Commit=commit,
                          X_Linked_Etag=f'"{etag}"', X_Linked_Size=str(len(data)),
                          ETag='"of the pointer"')


class Store(Handler):
    def do_GET(self):
        self.note("store")
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        model, name = path.strip("/").split("/", 1)
        if model == "expired" and State.count("store", model, name) == 1:
            return self.reply(403, b"<Error>Request has expired</Error>")
        return self.send_data(model, name, FILES[name])


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


LOG = sys.argv[1]
hub = Server(("127.0.0.1", 0), Hub)
store = Server(("127.0.0.1", 0), Store)
STORE_PORT = store.server_address[1]
for server in (hub, store):
    threading.Thread(target=server.serve_forever, daemon=True).start()
os.write(1, b"%d %d\n" % (hub.server_address[1], STORE_PORT))  # in one piece
sys.stdin.read()
os._exit(0)
