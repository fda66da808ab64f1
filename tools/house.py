"""What the checks of this folder share: the tracked files of a tree, their text, and how a violation is printed."""
import argparse
import os
import re
import subprocess
import sys


class House:
    def __init__(self, description):
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        parser.add_argument("--build", default="build", help="the build folder, for checks that need one")
        args = parser.parse_args()
        self.root, self.build, self.count = os.path.abspath(args.root), os.path.join(args.root, args.build), 0

    def files(self, pattern):
        """Tracked and new files (not ignored ones) whose path matches the regular expression, sorted."""
        done = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=self.root,
                              stdout=subprocess.PIPE, check=True)
        paths = sorted(set(os.fsdecode(done.stdout).split("\0")))
        return [p for p in paths if p and re.search(pattern, p) and os.path.isfile(os.path.join(self.root, p))]

    def bytes(self, path):
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def lines(self, path):
        return self.bytes(path).decode("utf-8", "replace").split("\n")

    def allowed(self, name):
        """An allow-list of lines 'entry  reason' ('#' starts a comment), as {entry: line number}."""
        path, found = f"tools/{name}", {}
        if os.path.exists(os.path.join(self.root, path)):
            for number, line in enumerate(self.lines(path), 1):
                words = line.split("#")[0].split()
                if len(words) == 1:
                    self.wrong(path, number, f"'{words[0]}' has no reason, expected 'entry  reason'")
                if words:
                    found[words[0]] = number
        return found

    def stale(self, name, allowed, used):
        for entry, number in allowed.items():
            if entry not in used:
                self.wrong(f"tools/{name}", number, f"'{entry}' is no longer needed, expected: the line is removed")

    def wrong(self, path, line, what):
        self.count += 1
        print(f"{path}:{line}: {what}")

    def finish(self, passed):
        if self.count == 0:
            print(passed)
        sys.exit(1 if self.count else 0)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def without_comments(text, strings=True):
    """C text with comments (and what stands in strings) as blanks; lines stay where they are."""
    kinds = r"/\*.*?\*/|//[^\n]*"
    quoted = r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'"
    return re.sub(f"{kinds}|{quoted}", lambda m: blank(m) if strings or m.group(0)[0] == "/" else m.group(0), text,
                  flags=re.DOTALL)
