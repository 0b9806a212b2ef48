"""A night that kills its whole process group at a hook, as a machine that loses power would.

Usage: python -m tests.faults.killed_night HOOK FLAGS...; begin it in a session of its own.
"""

import os
import signal
import sys

from medpipe.jobs import nightly
from tests.faults.crashes import hooked


def main() -> int:
    wanted, *flags = sys.argv[1:]

    def kill(hook: str) -> None:
        if hook == wanted:
            os.killpg(0, signal.SIGKILL)

    with hooked(kill):
        return nightly.main(flags)


if __name__ == "__main__":
    sys.exit(main())
