"""Sets up an environment and runs a job in it, with nothing but Python 3.11 or newer.

    python3 run.py demo      segment sample images with the bundled model
    python3 run.py test      run the tests

The job runs in the active virtual environment, else in ``.venv`` beside this file, which is made when it is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
JOBS = {  # the extras that a job needs, and its command
    "demo": ("", ["-m", "atrous", "demo"]),
    "test": ("[test]", ["-m", "pytest", "-q", "-n", "logical", "--maxprocesses", "4", "--dist", "worksteal"]),
}


def main(arguments: Sequence[str]) -> int:
    """Run the job that the first argument names; further ones are handed on to it."""
    if not arguments or arguments[0] not in JOBS:
        print(__doc__, file=sys.stderr)
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036 - this file also runs where the package can not be installed
        print(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    extras, command = JOBS[arguments[0]]
    try:
        python = Path(sys.executable) if sys.prefix != sys.base_prefix else make_environment()
        uv = find_uv(python)
        if uv:
            run([*uv, "pip", "install", "--python", str(python), "-e", f".{extras}"])
        else:
            run([str(python), "-m", "pip", "install", "-e", f".{extras}"])
    except subprocess.CalledProcessError as error:
        print(f"could not be set up: {' '.join(error.cmd)} failed", file=sys.stderr)
        return 1
    return subprocess.call([str(python), *command, *arguments[1:]], cwd=ROOT)


def make_environment() -> Path:
    """The interpreter of ``.venv``, made if it is missing."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file():
        return python
    print(f"setting up {ENVIRONMENT}", flush=True)
    if shutil.which("uv"):
        run(["uv", "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)])
        return python
    try:
        run([sys.executable, "-m", "venv", str(ENVIRONMENT)], quiet=True)
    except subprocess.CalledProcessError:  # Debian's Python comes without ensurepip: uv does without it
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        tools = ROOT / ".uv"
        try:
            run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools), "uv"])
        except subprocess.CalledProcessError:
            print(
                "this Python has neither venv nor pip; on Debian and Ubuntu: apt install python3-venv", file=sys.stderr
            )
            raise
        run([str(tools / "bin" / "uv"), "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT)])
    return python


def find_uv(python: Path) -> list[str]:
    """The command that runs uv, which installs several times faster than pip; it is installed where that works."""
    for place in (shutil.which("uv"), ROOT / ".uv" / "bin" / "uv"):
        if place and Path(place).is_file():
            return [str(place)]
    probe = subprocess.run([str(python), "-m", "pip", "install", "--quiet", "uv"], check=False)
    return [str(python), "-m", "uv"] if probe.returncode == 0 else []


def run(command: Sequence[str], *, quiet: bool = False) -> None:
    """Run a command in the repository; raises CalledProcessError if it fails."""
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL if quiet else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
