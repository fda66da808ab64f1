#!/usr/bin/env python3
"""darkroom convert and darkroom inspect."""
import json
import os
import shutil
import struct

from command import SMALL, SMALL_FLAGS, CommandTest, main, read_safetensors, write_safetensors

COMPONENTS = {"text_encoder": "model", "transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
KEPT = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")


def f32(*values):
    return struct.pack(f"<{len(values)}f", *values)


def bf16_of(values):
    """Round to nearest even, as bytes."""
    out = b""
    for (bits,) in struct.iter_unpack("<I", values):
        out += struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
    return out


class Convert(CommandTest):
    def weights(self, folder, component):
        return read_safetensors(os.path.join(folder, component, COMPONENTS[component] + ".safetensors"))

    def convert(self, *args):
        return self.passes("convert", "--log-level", "error", *args).stdout.strip()

    def generates(self, folder):
        # --cpu avx2: where a processor multiplies bf16, layers of few rows sum f32 weights in another order than bf16 ones.
        done = self.passes("generate", "--model-path", folder, *SMALL_FLAGS[2:], "--prompt", "x", "--num-frames", "5", "--json",
                           "--save-output=false", "--cpu", "avx2")
        return json.loads(done.stdout)["results"][0]["outputs"][0]["frames_sha256"]

    def test_there_and_back(self):
        half, back = self.path("half"), self.path("back")
        self.assertEqual(self.convert("--dtype", "bf16", SMALL, half), half)
        for component in COMPONENTS:
            old, old_data = self.weights(SMALL, component)
            new, new_data = self.weights(half, component)
            self.assertEqual(new.pop("__metadata__"), old.pop("__metadata__"))
            self.assertEqual(list(new), list(old))
            for name, entry in old.items():
                keep = component == "transformer" and any(part in KEPT for part in name.split("."))
                self.assertEqual(new[name]["shape"], entry["shape"])
                self.assertEqual(new[name]["dtype"], "F32" if keep else "BF16", name)
                values = old_data[slice(*entry["data_offsets"])]
                self.assertEqual(new_data[slice(*new[name]["data_offsets"])], values if keep else bf16_of(values), name)
            if component != "transformer":
                self.assertEqual(2 * len(new_data), len(old_data))
        for name in ("model_index.json", "tokenizer/tokenizer.json", "tokenizer/spiece.model", "vae/config.json"):
            with open(os.path.join(SMALL, name), "rb") as a, open(os.path.join(half, name), "rb") as b:
                self.assertEqual(a.read(), b.read())
        self.assertNotEqual(self.generates(half), self.generates(SMALL))
        self.convert("--dtype=f32", half, back)
        self.assertEqual(self.generates(back), self.generates(half))  # widening loses nothing
        self.assertEqual(sorted(os.listdir(self.folder)), ["back", "half"])

    def test_shards(self):
        sharded = shutil.copytree(SMALL, self.path("sharded"))
        folder = os.path.join(sharded, "transformer")
        header, data = self.weights(SMALL, "transformer")
        metadata = header.pop("__metadata__")
        os.remove(os.path.join(folder, "diffusion_pytorch_model.safetensors"))
        names, shards = sorted(header), ("diffusion_pytorch_model-00001-of-00002.safetensors",
                                         "diffusion_pytorch_model-00002-of-00002.safetensors")
        where = {name: shards[i % 2] for i, name in enumerate(names)}
        for shard in shards:
            write_safetensors(os.path.join(folder, shard),
                              {n: (header[n]["dtype"], header[n]["shape"], data[slice(*header[n]["data_offsets"])])
                               for n in names if where[n] == shard}, metadata)
        index = os.path.join(folder, "diffusion_pytorch_model.safetensors.index.json")
        with open(index, "w", encoding="utf-8") as file:
            json.dump({"metadata": {"total_size": len(data)}, "weight_map": where}, file)
        out, plain = self.path("out"), self.path("plain")
        self.convert("--dtype", "f16", sharded, out)
        self.convert("--dtype", "f16", SMALL, plain)
        self.assertEqual(self.generates(out), self.generates(plain))
        with open(index.replace(sharded, out), encoding="utf-8") as file:
            new = json.load(file)
        self.assertEqual(new["weight_map"], where)
        sizes = [len(read_safetensors(os.path.join(out, "transformer", shard))[1]) for shard in shards]
        self.assertEqual(new["metadata"]["total_size"], sum(sizes))
        listed = json.loads(self.passes("inspect", os.path.join(out, "transformer"), "--json").stdout)
        self.assertEqual((listed["tensor_count"], listed["bytes"]), (len(names), sum(sizes)))

    def test_values(self):
        values = f32(0.0, -0.0, 1.00390625, 1.01171875, 3.3895313892515355e38, 65519.996, 1e-41, float("inf"), float("nan"))
        f64 = struct.pack("<3d", 1.0 + 2**-8 + 2**-40, 1.0 + 2**-8, -0.1)
        file, out = self.path("in.safetensors"), self.path("out.safetensors")
        write_safetensors(file, {"w": ("F32", [9], values), "d": ("F64", [3], f64), "i": ("I64", [1], b"12345678"),
                                 "half": ("BF16", [2], b"\x80\x3f\x00\xc0"), "empty": ("F32", [0, 3], b""),
                                 "scalar": ("F32", [], f32(2.5))}, {"format": "pt", "about": "ünï"})
        self.assertEqual(self.convert("--dtype", "bf16", file, out), out)
        header, data = read_safetensors(out)
        self.assertEqual(header["__metadata__"], {"format": "pt", "about": "ünï"})
        raw = {n: data[slice(*e["data_offsets"])] for n, e in header.items() if n != "__metadata__"}
        self.assertEqual(struct.unpack("<9H", raw["w"]), (0, 0x8000, 0x3F80, 0x3F82, 0x7F7F, 0x4780, 0, 0x7F80, 0x7FC0))
        self.assertEqual(struct.unpack("<3H", raw["d"]), (0x3F81, 0x3F80, 0xBDCD))  # no double rounding
        self.assertEqual((raw["i"], raw["half"], raw["scalar"]), (b"12345678", b"\x80\x3f\x00\xc0", b"\x20\x40"))
        self.fails(2, ["tensor 'w'", "3.38953e+38", "F16"], "convert", "--dtype", "f16", file, self.path("x.safetensors"))
        write_safetensors(file, {"d": ("F64", [1], struct.pack("<d", 1e300))})
        self.fails(2, ["tensor 'd'"], "convert", "--dtype", "f32", file, self.path("x.safetensors"))
        write_safetensors(file, {"h": ("F32", [2], f32(65519.0, 65520.0))})
        self.fails(2, ["value 1 of tensor 'h'", "65520"], "convert", "--dtype", "f16", file, self.path("x.safetensors"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["in.safetensors", "out.safetensors"])

    def test_refusals(self):
        out, copy = self.path("out"), shutil.copytree(SMALL, self.path("copy"))
        self.convert(SMALL, out)
        self.fails(2, ["OUT exists", "--force"], "convert", SMALL, out)
        with open(os.path.join(out, "stale"), "w", encoding="utf-8"):
            pass
        self.convert("--force", SMALL, out + "/")
        self.assertFalse(os.path.exists(os.path.join(out, "stale")))
        os.mkdir(self.path("empty"))
        self.convert(SMALL, self.path("empty"))
        before = sorted(os.listdir(self.folder))
        for code, texts, *args in (
                (2, ["inside each other"], copy, os.path.join(copy, "new")),
                (2, ["inside each other"], "--force", copy, self.folder),
                (2, ["inside each other"], "--force", copy, copy),
                (2, ["lies inside OUT"], "--force", copy + "/vae/diffusion_pytorch_model.safetensors", copy + "/vae"),
                (2, ["accepted are"], SMALL + "/model_index.json", self.path("new")),
                (2, ["--dtype is 'int8'"], "--dtype", "int8", SMALL, self.path("new")),
                (2, ["too few arguments"], SMALL),
                (2, ["unexpected argument"], SMALL, "a", "b"),
                (6, ["/nonexistent"], SMALL, "/nonexistent/new"),
                (3, ["no safetensors"], copy + "/tokenizer", self.path("new"))):
            with self.subTest(args=args):
                self.fails(code, texts, "convert", *args)
                self.assertEqual(sorted(os.listdir(self.folder)), before)
        path = os.path.join(copy, "vae/diffusion_pytorch_model.safetensors")
        os.truncate(path, os.path.getsize(path) - 1)
        self.fails(4, ["vae/diffusion_pytorch_model.safetensors"], "convert", copy, self.path("new"))
        self.assertEqual(sorted(os.listdir(self.folder)), before)


class Inspect(CommandTest):
    def test_model(self):
        model = json.loads(self.passes("inspect", SMALL, "--json").stdout)
        self.assertEqual(model["pipeline"], "WanPipeline")
        self.assertEqual(set(model["components"]), {"scheduler", "text_encoder", "tokenizer", "transformer", "vae"})
        part = model["components"]["transformer"]
        header, data = read_safetensors(os.path.join(SMALL, "transformer/diffusion_pytorch_model.safetensors"))
        self.assertEqual((part["class"], part["tensor_count"], part["bytes"]),
                         ("WanTransformer3DModel", len(header) - 1, len(data)))
        self.assertEqual((part["parameters"], part["dtypes"]), (len(data) // 4, {"F32": len(data) // 4}))
        self.assertIn("config.json", part["files"])
        self.assertEqual(part["config"]["num_layers"], 3)
        text = self.passes("inspect", SMALL).stdout
        for word in ("WanPipeline", "AutoencoderKLWan", "num_layers 3", "F32"):
            self.assertIn(word, text)
        self.assertIn("blocks.0.attn1.to_q.weight", self.passes("inspect", SMALL, "--tensors").stdout)

    def test_every_type(self):
        bits = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
                "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
                "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
        file = self.path("all.safetensors")
        write_safetensors(file, {name: (name, [2, 4], bytes(size)) for name, size in bits.items()})
        listed = json.loads(self.passes("inspect", file, "--json").stdout)
        self.assertEqual({t["name"]: t["bytes"] for t in listed["tensors"]}, bits)
        self.assertEqual(listed["dtypes"], {name: 8 for name in bits})
        text = self.passes("inspect", file).stdout
        for name in bits:
            self.assertRegex(text, rf"(?m)^    {name} +\[2, 4\] +{name}$")
        self.convert_keeps(file)

    def convert_keeps(self, file):
        self.passes("convert", "--dtype", "bf16", file, self.path("new.safetensors"))
        header, _ = read_safetensors(self.path("new.safetensors"))
        for name, entry in header.items():
            floats = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
            self.assertEqual(entry["dtype"], "BF16" if name in floats else name)

    def test_broken_files(self):
        file = self.path("b.safetensors")
        write_safetensors(file, {"w": ("F4", [3], b"\0\0")})
        self.fails(4, ["tensor 'w'", "inside a byte"], "inspect", file)
        write_safetensors(file, {"w": ("F5", [3], b"\0\0")})
        self.fails(4, ["tensor 'w'", "'F5'"], "inspect", file)
        write_safetensors(file, {"w": ("F32", [3], f32(1, 2))})
        self.fails(4, ["tensor 'w'"], "inspect", file)
        self.write("b.safetensors", "not at all")
        done = self.fails(4, ["b.safetensors"], "inspect", file, "--json")
        self.assertEqual(json.loads(done.stdout)["error"]["exit_code"], 4)
        self.fails(4, ["model_index.json"], "inspect", os.path.dirname(self.write("model_index.json", "{")))
        self.fails(2, ["too few arguments"], "inspect")
        os.mkdir(self.path("none"))
        self.fails(3, ["safetensors"], "inspect", self.path("none"))


if __name__ == "__main__":
    main()
