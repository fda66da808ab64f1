#!/usr/bin/env python3
"""Each house check accepts a small clean tree and refuses it with one planted violation, at the right place."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = os.path.dirname(os.path.abspath(__file__))
HOUSE = ["house.py", "check_format", "check_layers", "check_sizes", "check_headers", "check_symbols", "check_text"]
CLEAN = {
    "docs/architecture.md": "# Architecture\n\n| folder | what |\n|---|---|\n| include/dk | public |\n| src/base | errors |\n"
                            "| src/nn | layers |\n",
    "include/dk/dk.h": "#ifndef DK_H\n#define DK_H\nint dk_public(void);\n#endif\n",
    "src/base/a.h": "#ifndef DK_A_H\n#define DK_A_H\nint dk_a(int x);\n#endif\n",
    "src/base/a.c": '#include "base/a.h"\n\n#include "dk/dk.h"\n\nint dk_a(int x)\n{\n    return x;\n}\n\n'
                    "int dk_public(void)\n{\n    return 1;\n}\n",
    "src/nn/b.c": '#include "base/a.h"\n\nint dk_b(void);\n\nint dk_b(void)\n{\n    return dk_a(2);\n}\n',
    "tools/symbols_allowed.txt": "dk_b  an example\n",
}


class Tree:
    """A repository of its own in a temporary folder."""

    def __init__(self):
        self.root = tempfile.mkdtemp(prefix="darkroom-checks-")
        subprocess.run(["git", "init", "-q", self.root], check=True)
        shutil.copy(os.path.join(os.path.dirname(TOOLS), ".clang-format"), self.root)
        with open(os.path.join(self.root, ".git", "info", "exclude"), "a", encoding="utf-8") as file:
            file.write("build/\n__pycache__/\n")
        for path, text in CLEAN.items():
            self.write(path, text)
        for name in HOUSE:
            shutil.copy(os.path.join(TOOLS, name), os.path.join(self.root, "tools"))

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def build(self):
        objects, folder = [], os.path.join(self.root, "build", "src", "CMakeFiles", "darkroom.dir")
        os.makedirs(folder, exist_ok=True)
        for base, _, names in os.walk(os.path.join(self.root, "src")):
            for name in sorted(n for n in names if n.endswith(".c")):
                objects.append(os.path.join(folder, name + ".o"))
                subprocess.run(["gcc", "-Isrc", "-Iinclude", "-c", os.path.join(base, name), "-o", objects[-1]],
                               cwd=self.root, check=True)
        subprocess.run(["ar", "rcs", os.path.join(self.root, "build", "src", "libdarkroom.a"), *objects], check=True)

    def run(self, check):
        done = subprocess.run([sys.executable, "-B", os.path.join(self.root, "tools", f"check_{check}"), "--root", self.root],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout


def function(name, lines):
    return f"int {name}(int x);\n\nint {name}(int x)\n{{\n" + "    x++;\n" * lines + "    return x;\n}\n"


LONG = function("dk_long", 130)
TANGLED = "int dk_t(int x);\n\nint dk_t(int x)\n{\n" + "    if (x == 3) {\n        return 1;\n    }\n" * 26 + "    return x;\n}\n"

# check, planted file, its text, what must be printed
PLANTED = [
    ("format", "src/base/c.c", "int  dk_c;\n", "src/base/c.c:1: not formatted"),
    ("format", "src/base/c.c", "extern int dk_c; \n", "src/base/c.c:1: trailing blank"),
    ("format", "README.md", "a\tb\n", "README.md:1: tab"),
    ("format", "README.md", "one\ntwo", "README.md:2: no newline at the end"),
    ("format", "README.md", "one\r\n", "README.md:1: a carriage return"),
    ("format", "README.md", "a\u200bb\n", "README.md:1: invisible character U+200B"),
    ("format", "src/base/c.c", "void f(char *a, char *b)\n{\n    strcpy(a, b);\n}\n", "src/base/c.c:3: strcpy() is banned"),
    ("format", "src/nn/c.c", "void f(void)\n{\n    g(malloc(3));\n}\n", "src/nn/c.c:3: malloc() is banned"),
    ("format", "src/nn/c.c", "void f(char *a)\n{\n    free(a);\n}\n", "src/nn/c.c:3: free() is banned"),
    ("format", "src/nn/c.c", 'void f(void)\n{\n    printf("x");\n}\n', "src/nn/c.c:3: printf() is banned"),
    ("format", "src/nn/c.c", "#ifdef __AVX2__\n#endif\n", "src/nn/c.c:1: instruction-set macro"),
    ("format", "tools/format_allowed.txt", "src/nn/b.c:free  a reason\n", "tools/format_allowed.txt:1: 'src/nn/b.c:free' is no"),
    ("layers", "src/base/c.c", '#include "nn/b.h"\n', 'src/base/c.c:1: "nn/b.h" is not found'),
    ("layers", "src/nn/n.h", '#include "a.h"\n', 'src/nn/n.h:1: "a.h" is not found'),
    ("layers", "src/other/c.c", "\n", "src/other/c.c:1: its folder is not in the table"),
    ("sizes", "src/base/c.c", LONG, "src/base/c.c:3: dk_long has 13"),
    ("sizes", "src/base/c.c", TANGLED, "src/base/c.c:3: dk_t has a complexity of 27"),
    ("sizes", "src/base/c.c", "\n" * 901, "src/base/c.c:901: the file has 901 lines"),
    ("sizes", "src/base/c.h", "\n" * 251, "src/base/c.h:251: the file has 251 lines"),
    ("sizes", "tools/sizes_allowed.txt", "src/nn/b.c  a table\n", "tools/sizes_allowed.txt:1: 'src/nn/b.c' is no longer"),
    ("headers", "src/base/c.h", "size_t dk_c(void);\n", "src/base/c.h:1: expected to compile alone as C17"),
    ("headers", "include/dk/c.h", "#ifndef C\n#define C\nint dk_class(int class);\n#endif\n", "include/dk/c.h:3: expected to "
     "compile alone as C++"),
    ("symbols", "src/base/c.c", "int helper(void)\n{\n    return 1;\n}\n", "src/base/c.c:1: external symbol 'helper'"),
    ("symbols", "src/base/c.c", "static int counter;\nint *dk_public_counter(void)\n{\n    return &counter;\n}\n",
     "src/base/c.c:1: 'counter' can be written"),
    ("symbols", "src/base/c.c", "int dk_alone(void)\n{\n    return 1;\n}\n", "src/base/c.c:1: 'dk_alone' is used by no other"),
    ("text", "README.md", "see /home/ada/models\n", "README.md:1: '/home/a': a folder of one machine"),
    ("text", "README.md", "in this session\n", "README.md:1: 'this session'"),
]


class Checks(unittest.TestCase):
    def setUp(self):
        self.tree = Tree()
        self.addCleanup(shutil.rmtree, self.tree.root)

    def test_clean_tree_passes(self):
        self.tree.build()
        for check in ("format", "layers", "sizes", "headers", "symbols", "text"):
            with self.subTest(check=check):
                code, output = self.tree.run(check)
                self.assertEqual(code, 0, output)

    def test_upward_include(self):
        self.tree.write("src/nn/n.h", "#ifndef N_H\n#define N_H\n#endif\n")
        self.tree.write("src/base/c.c", '#include "nn/n.h"\n')
        code, output = self.tree.run("layers")
        self.assertEqual(code, 1)
        self.assertIn("src/base/c.c:1: src/base includes src/nn/n.h", output)


def planted(check, path, text, expected):
    def test(self):
        self.tree.write(path, text)
        if check == "symbols":
            self.tree.build()
        code, output = self.tree.run(check)
        self.assertEqual(code, 1, output)
        self.assertIn(expected, output)
    return test


for index, case in enumerate(PLANTED):
    setattr(Checks, f"test_{case[0]}_{index:02}", planted(*case))

if __name__ == "__main__":
    unittest.main()
