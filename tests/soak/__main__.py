"""`python -m tests.soak`: kills and starves a training for some minutes, then proves that nothing was lost or doubled.

Real Kafka, Redis and S3, the real fleet of processes. What happens is a function of the seed, which is printed. Exit
code 0 only if everything held; otherwise logs, checkpoint and topic stay where the last lines say.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.soak.run import Soak
from tests.soak.schedule import Mode
from tests.soak.servers import Servers
from tests.soak.story import Story


def main() -> int:
    """Parses the command line and runs one soak a mode."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of misfortune, all modes together")
    parser.add_argument("--seed", type=int, default=None, help="a random one without it")
    parser.add_argument("--mode", choices=[*Mode, "both"], default="both")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    modes = list(Mode) if arguments.mode == "both" else [Mode(arguments.mode)]
    again = f"make soak MINUTES={arguments.minutes:g} SEED={seed} MODE={arguments.mode}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and attempts end with this process
    folder = Path(tempfile.mkdtemp(prefix="kuberec-soak-"))
    console = Console()
    console.print(f"{again}\n  logs and data: {folder}", markup=False, highlight=False, soft_wrap=True)
    try:
        with Servers(folder / "servers", seed) as servers:
            for mode in modes:
                story = Story(console)
                story.say(f"{mode}: {arguments.minutes / len(modes):g} minutes")
                Soak(servers, folder / mode.lower(), story, seed, mode).run(arguments.minutes / len(modes))
    except BaseException:
        console.print(f"FAILED; again: {again}\n  kept: {folder}", markup=False, highlight=False, soft_wrap=True)
        raise
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
