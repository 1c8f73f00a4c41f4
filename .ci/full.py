"""Run make targets one after the other, all of them even if one fails; say at the end what was skipped and why."""

import re
import subprocess
import sys
import time

SKIP = re.compile(r"^(?:SKIPPED|XFAIL)\b.*", re.MULTILINE)  # how pytest -ra and .ci/interpreters.py report one


def run(target: str) -> tuple[bool, list[str]]:
    """Run one target, passing on what it prints as it comes.

    Returns:
        Whether it passed, and its lines about what was skipped.
    """
    output = bytearray()
    command = ["make", "--no-print-directory", target]
    with subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(65536):  # what is there, not a whole line: pytest's dots show at once
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            output += piece
    return process.returncode == 0, SKIP.findall(output.decode(errors="replace"))


def main(targets: list[str]) -> int:
    """Run the targets and print what came of each.

    Returns:
        The exit code: 1 if any target failed.
    """
    results, skips = [], []
    for number, target in enumerate(targets, 1):
        print(f"\n=== {number}/{len(targets)} make {target}", flush=True)
        start = time.monotonic()
        passed, skipped = run(target)
        minutes, seconds = divmod(round(time.monotonic() - start), 60)
        results.append(
            (passed, f"{'passed' if passed else 'FAILED'}  make {target:<14} {minutes:>2} min {seconds:02} s")
        )
        skips += [f"make {target}: {line}" for line in skipped]
    print("\n=== result", *(line for _, line in results), sep="\n")
    print("\n=== skipped, and why", *(skips or ["nothing"]), sep="\n", flush=True)
    return int(not all(passed for passed, _ in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
