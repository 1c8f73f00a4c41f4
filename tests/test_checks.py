"""What is asked of the machine before anything is measured."""

import os
import subprocess
import sys
from contextlib import ExitStack

from edgetok.checks import load_check

BUSY = "print(flush=True)\nwhile True: pass"


def test_processes_that_keep_every_core_busy_are_seen() -> None:
    cores = os.cpu_count()
    assert cores is not None
    with ExitStack() as stack:
        for _ in range(cores):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline()
        check = load_check()
    busy = float(check.detail.removeprefix("others kept ").split()[0])
    assert check.verdict == "warn" and cores / 2 < busy <= cores
    assert check.detail == f"others kept {busy:.2f} of {cores} cores busy at the start"
