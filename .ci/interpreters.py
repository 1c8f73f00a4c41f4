"""Show that bundles need neither PyTorch nor the newest Python: the wheel in fresh environments of other Pythons.

Bundles are exported by this Python, then loaded, checked, run and profiled by each of the others. A Python that is not
on the machine is skipped and said so, unless CI=true: then it is a failure.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PORTABLE = Path("tests/portable")
BUNDLES = Path(".portable/bundles")
TARGETS = (  # Python, onnxruntime, and what that pair stands for
    ("3.10", "onnxruntime==1.23.2", "JetPack 6, with the newest CPU runtime made for it"),
    ("3.12", "onnxruntime", "JetPack 7, with the newest runtime"),
)
PROBE = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"


def step(*command: str | Path, cwd: Path | None = None) -> None:
    """Run one command, shown before it runs; the first that fails ends all."""
    print("+", *command, flush=True)
    if status := subprocess.run(command, cwd=cwd).returncode:
        sys.exit(f"exit status {status} of: {' '.join(map(str, command))}")


def find_python(version: str) -> str | None:
    """A Python of that version that can make environments, and starts at all: pyenv's shims on PATH may not."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(versions.glob(f"{version}.*/bin/python"), reverse=True)]
    for candidate in filter(None, candidates):
        probe = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True)
        if probe.returncode == 0 and probe.stdout.strip() == version:
            return str(candidate)
    return None


def check(python: str, version: str, runtime: str, wheel: Path) -> None:
    """Install the wheel and the runtime into a new environment of that Python, and check the bundles there."""
    env = Path(f".venv-py{version}").absolute()
    step(python, "-m", "venv", "--clear", env)
    step(env / "bin/python", "-m", "pip", "install", "--progress-bar", "off", wheel, runtime)
    script = PORTABLE.absolute() / "check_bundles.py"
    step(env / "bin/python", script, BUNDLES.absolute(), cwd=env)  # away from the checkout: what runs is the wheel


def main() -> int:
    """Export the bundles and check them on every Python.

    Returns:
        The exit code: 1 if a Python is missing in CI.
    """
    pythons = {version: find_python(version) for version, _, _ in TARGETS}
    shutil.rmtree("dist", ignore_errors=True)
    step(sys.executable, "-m", "hatchling", "build", "-t", "wheel")
    (wheel,) = Path("dist").glob("*.whl")
    step(sys.executable, PORTABLE / "export_bundles.py", BUNDLES)
    missing = []
    for version, runtime, why in TARGETS:
        print(f"\n--- Python {version}, {runtime}: {why}", flush=True)
        if python := pythons[version]:
            check(python, version, runtime, wheel)
        else:
            missing.append(f"Python {version} ({why}): no python{version} on PATH or in pyenv; put one there")
    required = os.environ.get("CI") == "true"
    for line in missing:
        print("\nFAILED" if required else "\nSKIPPED", line, flush=True)
    return int(required and bool(missing))


if __name__ == "__main__":
    sys.exit(main())
