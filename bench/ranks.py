#!/usr/bin/env python3
"""Two ranks against one of half the cores: parallel efficiency, in turns.

    ./dev bench ranks [--threads N] [--rounds N] [--limit SECONDS] [--without-beside] [--width W --height H --num-frames F]

A round measures the published 1.3B transformer by one rank on N cores (the others idle), by two such ranks at once that
have nothing to do with each other, one on each half of the cores, and by two ranks that share the sequence: Ulysses, then a
ring. All are there from the beginning, each makes a pass in its turn and sleeps in the others', so that a round is one pass
of each and they meet the same machine; the seven processes hold 23 GB, five without the pair beside 16 GB. Efficiency is the
time of one over twice the time of two. The ranks that know nothing of each other show what the machine itself gives when all
cores work: what they lose no layout can win back. "stolen" is the share of the cores' time that a host took away for others
meanwhile, as a guest's kernel counts it.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAYOUTS = {"ulysses": "--ulysses-degree", "ring": "--ring-degree"}


class Bench:
    """A `bench model` that makes a pass when it is told to."""

    def __init__(self, args, cores, *flags):
        command = [args.program, "bench", "model", "--part", "dit", "--config", args.config, "--width", str(args.width),
                   "--height", str(args.height), "--num-frames", str(args.num_frames), "--threads", str(args.threads),
                   "--turns", "--json", *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cores))

    def begin(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def seconds(self):
        """Of the pass that was begun."""
        line = self.process.stdout.readline()
        if not line or "seconds" not in (facts := json.loads(line)):
            self.process.kill()
            sys.exit(f"bench ranks: {' '.join(self.process.args)} ended: {line}")
        return facts["seconds"]

    def end(self):
        """The facts of all passes but the first."""
        return json.loads(self.process.communicate()[0])


def stolen_ticks(cores):
    with open("/proc/stat") as file:
        fields = (line.split() for line in file if line.startswith("cpu"))
        return sum(int(field[8]) for field in fields if field[0] in {f"cpu{core}" for core in cores})


def turn(benches, cores):
    """Seconds of a pass that all of them make at once, and the share of the cores' time that was stolen."""
    begun, ticks = time.monotonic(), stolen_ticks(cores)
    for bench in benches:
        bench.begin()
    seconds = statistics.mean(bench.seconds() for bench in benches)
    stolen = (stolen_ticks(cores) - ticks) / os.sysconf("SC_CLK_TCK")
    return seconds, stolen / len(cores) / (time.monotonic() - begun)


def rounds(args, contenders, begun):
    """The first one warms up. None begins that would not end within the limit, were it a quarter longer than the longest."""
    longest, done = 0.0, []
    while len(done) <= args.rounds and time.monotonic() - begun + 1.25 * longest < args.limit:
        before = time.monotonic()
        row = {what: turn(*contender) for what, contender in contenders.items()}
        longest = max(longest, time.monotonic() - before) if done else 0.0
        done.append(row)
        print("  ".join(f"{what} {seconds:.2f} s" + (f" ({stolen:.1%} stolen)" if stolen >= 0.0005 else "")
                        for what, (seconds, stolen) in row.items()) + ("  (warming up)" if len(done) == 1 else ""), flush=True)
    return done[1:]


def save(path, contenders):
    """How the passes of each were spent."""
    facts = {what: [bench.end() for bench in benches] for what, (benches, _) in contenders.items()}
    if path:
        with open(path, "a", encoding="utf-8") as file:
            json.dump(facts, file)
            file.write("\n")
    for what in LAYOUTS:
        of_two = facts[what][0]
        waited = sum(call["waited"] for call in of_two["communication"].values())
        print(f"{what}: its first rank waited for the other in {waited / of_two['seconds']:.1%} of a pass")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "darkroom"))
    parser.add_argument("--config", default=os.path.join(ROOT, "tests", "configs", "wan2.1-t2v-1.3b"))
    parser.add_argument("--threads", type=int, default=len(cores) // 2, help="of a rank (default: half the cores)")
    parser.add_argument("--rounds", type=int, default=8, help="timed ones, after one that warms up")
    parser.add_argument("--limit", type=float, default=3600, help="seconds in which the last round must end")
    parser.add_argument("--without-beside", dest="beside", action="store_const", const=[], default=["beside"],
                        help="leave out the two ranks that have nothing to do with each other")
    parser.add_argument("--save", metavar="FILE", help="where the facts of the passes of each are added, as a line of JSON")
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--num-frames", type=int, default=33)
    args = parser.parse_args()
    if not 0 < 2 * args.threads <= len(cores):
        sys.exit(f"bench ranks: two ranks of {args.threads} threads, this process may use {len(cores)} cores")
    halves = [set(cores[:args.threads]), set(cores[args.threads:2 * args.threads])]
    begun, both = time.monotonic(), halves[0] | halves[1]
    contenders = {"one": ([Bench(args, halves[0])], halves[0])}
    if args.beside:
        contenders["beside"] = ([Bench(args, half) for half in halves], both)
    for what, flag in LAYOUTS.items():
        contenders[what] = ([Bench(args, both, "--num-gpus", "2", flag, "2")], both)
    done = rounds(args, contenders, begun)
    if not done:
        sys.exit(f"bench ranks: warming up took longer than the limit of {args.limit:g} seconds")
    save(args.save, contenders)
    for what in [*args.beside, *LAYOUTS]:
        share = 1 if what == "beside" else 2
        each = [row["one"][0] / (share * row[what][0]) for row in done]
        print(f"{what}: {statistics.median(each):.2f} median of {', '.join(f'{e:.2f}' for e in each)}")
    for what in LAYOUTS if args.beside else []:
        each = [row["beside"][0] / (2 * row[what][0]) for row in done]
        print(f"{what} against ranks beside each other: {statistics.median(each):.2f} median of "
              f"{', '.join(f'{e:.2f}' for e in each)}")


if __name__ == "__main__":
    main()
