"""Start a command on one core: ``pinned.py CORE,CORE,... COMMAND ...`` takes the core number LOCAL_RANK of the list.

For timing ranks that must not share a core: torchrun --no-python python scripts/pinned.py 0,1 python -m trainer.main
"""

import os
import sys

if __name__ == "__main__":
    cores = [int(core) for core in sys.argv[1].split(",")]
    os.sched_setaffinity(0, {cores[int(os.environ["LOCAL_RANK"])]})
    os.execvp(sys.argv[2], sys.argv[2:])
