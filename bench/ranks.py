#!/usr/bin/env python3
"""Two ranks against one of half the cores: parallel efficiency, in turns.

    ./dev bench ranks [--threads N] [--rounds N] [--limit SECONDS] [--without-beside] [--width W --height H --num-frames F]

A round measures the published 1.3B transformer by one rank on N cores (the others idle), by two such ranks at once that
have nothing to do with each other, one on each half of the cores, and by two ranks that share the sequence: Ulysses, then a
ring. Efficiency is the time of one over twice the time of two. The ranks that know nothing of each other show what the
machine itself gives when all cores work: what they lose no layout can win back. "stolen" is the share of the cores' time
that a host took away for others meanwhile, as a guest's kernel counts it.
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


def start(args, cores, *flags):
    command = [args.program, "bench", "model", "--part", "dit", "--config", args.config, "--width", str(args.width),
               "--height", str(args.height), "--num-frames", str(args.num_frames), "--threads", str(args.threads),
               "--repeats", str(args.repeats), "--json", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cores))


def seconds_of(process, save):
    output = process.communicate()[0]
    if process.returncode != 0:
        sys.exit(output.decode())
    facts = json.loads(output)
    if save:
        with open(save, "a", encoding="utf-8") as file:
            json.dump(facts, file)
            file.write("\n")
    waited = sum(call["waited"] for call in facts.get("communication", {}).values())
    return facts["seconds"], waited


def stolen_ticks(cores):
    with open("/proc/stat") as file:
        fields = (line.split() for line in file if line.startswith("cpu"))
        return sum(int(field[8]) for field in fields if field[0] in {f"cpu{core}" for core in cores})


def measure(args, what, halves):
    if what == "one":
        return seconds_of(start(args, halves[0]), args.save)
    if what == "beside":
        pair = [start(args, half) for half in halves]
        return statistics.mean(seconds_of(process, args.save)[0] for process in pair), 0.0
    return seconds_of(start(args, halves[0] | halves[1], "--num-gpus", "2", LAYOUTS[what], "2"), args.save)


def measured(args, what, halves):
    """Seconds of a pass, seconds of it waited, and the share of its cores' time that was stolen."""
    cores = halves[0] if what == "one" else halves[0] | halves[1]
    begun, ticks = time.monotonic(), stolen_ticks(cores)
    seconds, waited = measure(args, what, halves)
    stolen = (stolen_ticks(cores) - ticks) / os.sysconf("SC_CLK_TCK")
    return seconds, waited, stolen / len(cores) / (time.monotonic() - begun)


def rounds(args, halves):
    """Whole rounds only; none begins that would not end within the limit, were it a quarter longer than the longest yet."""
    begun, longest, done = time.monotonic(), 0.0, []
    while len(done) < args.rounds and time.monotonic() - begun + 1.25 * longest < args.limit:
        before = time.monotonic()
        row = {what: measured(args, what, halves) for what in ["one", *args.beside, *LAYOUTS]}
        longest = max(longest, time.monotonic() - before)
        done.append(row)
        print("  ".join(f"{what} {seconds:.2f} s (" + (f"waited {waited:.2f}, " if waited else "") + f"stolen {stolen:.1%})"
                        for what, (seconds, waited, stolen) in row.items()), flush=True)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "darkroom"))
    parser.add_argument("--config", default=os.path.join(ROOT, "tests", "configs", "wan2.1-t2v-1.3b"))
    parser.add_argument("--threads", type=int, default=len(cores) // 2, help="of a rank (default: half the cores)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2, help="timed passes of each run, after one to warm up")
    parser.add_argument("--limit", type=float, default=3600, help="seconds in which the last round must end")
    parser.add_argument("--without-beside", dest="beside", action="store_const", const=[], default=["beside"],
                        help="leave out the two ranks that have nothing to do with each other")
    parser.add_argument("--save", metavar="FILE", help="where the facts of every run are added, a line of JSON each, in the order of runs")
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--num-frames", type=int, default=33)
    args = parser.parse_args()
    if not 0 < 2 * args.threads <= len(cores):
        sys.exit(f"bench ranks: two ranks of {args.threads} threads, this process may use {len(cores)} cores")
    halves = [set(cores[:args.threads]), set(cores[args.threads:2 * args.threads])]
    done = rounds(args, halves)
    for what in [*args.beside, *LAYOUTS]:
        share = 1 if what == "beside" else 2
        each = [row["one"][0] / (share * row[what][0]) for row in done]
        if each:
            print(f"{what}: {statistics.median(each):.2f} median of {', '.join(f'{e:.2f}' for e in each)}")
    for what in LAYOUTS if args.beside else []:
        each = [row["beside"][0] / (2 * row[what][0]) for row in done]
        if each:
            print(f"{what} against ranks beside each other: {statistics.median(each):.2f} median of "
                  f"{', '.join(f'{e:.2f}' for e in each)}")


if __name__ == "__main__":
    main()
