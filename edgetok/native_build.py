"""Builds the C++ operators: `python -m edgetok.native_build`, and during an installation (hatch_build.py).

The same compiler makes the same bytes, wherever the sources lie.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# C++20 for lambdas with template parameters; g++ 11 knows all of INSTRUCTIONS. The last two of -f lose no NaN: they
# only ignore errno and traps.
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
AVX2 = ("-mavx2", "-mfma", "-mf16c")
INSTRUCTIONS = {  # of one file each; which of them runs is decided on the machine
    ("x86_64", "kernel_avx2"): AVX2,
    ("x86_64", "kernel_avxvnni"): (*AVX2, "-mavxvnni"),
    ("x86_64", "kernel_avx512"): (*AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
    ("aarch64", "kernel_neon"): ("-march=armv8.2-a+dotprod",),
}


def build(compiler: str, sources: Path, library: Path, digest: str) -> None:
    """Compile every source at once and link them.

    Raises:
        CalledProcessError: the compiler refused; `stderr` says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects, running = [], []
        for source in sorted(sources.glob("*.cpp")):
            objects.append(str(Path(folder) / f"{source.stem}.o"))
            own = INSTRUCTIONS.get((platform.machine(), source.stem), ())
            marked = f'-DEDGETOK_SOURCES="{digest}"'
            command = [compiler, *FLAGS, *own, marked, "-c", source.name, "-o", objects[-1]]
            running.append(subprocess.Popen(command, cwd=sources, stderr=subprocess.PIPE, text=True))
        for process in running:
            _, errors = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args, stderr=errors)
        # Renamed into place: a process that has the old one loaded keeps it.
        made = Path(folder) / library.name
        link = [compiler, "-shared", "-s", "-Wl,--build-id=none", *objects, "-o", str(made)]
        subprocess.run(link, stderr=subprocess.PIPE, text=True, check=True)
        waiting = library.with_suffix(".new")
        shutil.copy(made, waiting)
        waiting.replace(library)


def main() -> int:
    """Build them beside the sources of this installation; the exit code is 1 where that cannot be done."""
    from edgetok import native

    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        print("no C++ compiler: apt install g++", file=sys.stderr)
        return 1
    try:
        build(compiler, native.FOLDER, native.FOLDER / native.LIBRARY, native.digest(native.FOLDER))
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    print(native.examine(native.FOLDER).detail)
    return 0


if __name__ == "__main__":
    sys.exit(main())
