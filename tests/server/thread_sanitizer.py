"""Runs a test against a program built with ThreadSanitizer and fails when any of its processes reported a race:

    thread_sanitizer.py test_openai.py PROGRAM [argument…]

Servers, schedulers and workers inherit TSAN_OPTIONS and write their reports into files, which are read afterwards: a
worker that is killed by a test, or started again, hides nothing."""
import glob
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    with tempfile.TemporaryDirectory() as folder:
        options = f"log_path={folder}/report:suppressions={HERE}/thread_sanitizer.supp:exitcode=0:history_size=4:second_deadlock_stack=1"
        code = subprocess.call([sys.executable, "-W", "ignore", *sys.argv[1:]], env=dict(os.environ, TSAN_OPTIONS=options))
        reports = sorted(path for path in glob.glob(f"{folder}/report.*") if os.path.getsize(path) > 0)
        for path in reports[:5]:
            with open(path, encoding="utf-8", errors="replace") as file:
                print(file.read()[:8000], file=sys.stderr)
        print(f"{len(reports)} processes with reports of ThreadSanitizer", file=sys.stderr)
    return code or (1 if reports else 0)


if __name__ == "__main__":
    sys.exit(main())
