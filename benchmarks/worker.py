"""One library, one task, one process: prepares, warms up, then times a round for each line it is sent."""

from __future__ import annotations

import os
import sys
import time

import torch

from .tasks import TASKS


def main(task: str, side: str, threads: int, tuned: bool, cpu: bool) -> None:
    torch.set_num_threads(threads)
    if tuned:
        from llmlab.speed import tune_process

        tune_process()
    row = TASKS[task]
    work = row.sides[side]()
    for _ in range(2):
        work()
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes elsewhere
    print("ready", file=reply, flush=True)
    clock = time.process_time if cpu else time.perf_counter
    for _ in sys.stdin:
        start = clock()
        work()
        print((clock() - start) / row.per_round, file=reply, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1", sys.argv[5] == "1")
