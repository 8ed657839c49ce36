"""Trains in child processes that are killed (SIGKILL) at random moments and resumed, until one finishes: ``killer.py
RECIPE OUT KILLS SEED``.

A separate program: children are forked from a process that has imported everything and computed nothing, since a fork
after OpenMP has started threads would hang.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

# What a training imports when it first needs it: here once, not in every child.
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401

import atrous.ops.confusion
import atrous.ops.labelmap.cpu  # noqa: F401
from atrous.training.recipe import Recipe
from atrous.training.run_folder import find_state
from atrous.training.stages import train
from atrous.training.types import Progress


def child(recipe: Path, out: Path) -> int:
    number = os.fork()
    if number == 0:
        os.setpgid(0, 0)  # workers die with it, as when a machine goes down
        train(Recipe.model_validate_json(recipe.read_text()), out, resume=find_state(out) is not None, on_step=linger)
        os._exit(0)
    os.setpgid(number, number)  # here too: the child may be killed before it gets to run
    return number


def linger(_: Progress) -> None:
    time.sleep(0.05)  # a finished run can't be killed, however fast the machine


def ended(number: int) -> bool:
    return os.waitpid(number, os.WNOHANG) != (0, 0)


def main() -> None:
    recipe, out, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    moments = random.Random(seed)
    done = []
    while len(done) < kills:
        number = child(recipe, out)
        if len(done) % 3 == 2:  # while a checkpoint is being written
            what, latest = "writing", moments.uniform(0, 0.004)
            places = [out / ".state.new", out / ".last.new", out / ".best.new"]
            place = places[len(done) // 3 % 3]
            while not place.exists() and not ended_unreaped(number):
                pass
        else:
            what, latest = "any moment", moments.uniform(0.05, 0.8)
        time.sleep(latest)
        if ended(number):
            print("ended before it was killed; done so far:", done)
            sys.exit(3)
        os.killpg(number, signal.SIGKILL)
        os.waitpid(number, 0)
        state = find_state(out)
        done.append(what)
        print(f"kill {len(done)}: {what}, {state and (state / 'state.json').read_text()[:20].split()}", flush=True)
    number = child(recipe, out)
    assert os.waitpid(number, 0)[1] == 0


def ended_unreaped(number: int) -> bool:
    """Whether the child has ended, without reaping it."""
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    main()
