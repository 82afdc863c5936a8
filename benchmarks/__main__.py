"""Time side by side with other libraries: python -m benchmarks [--quick] [--only TEXT].

Each library runs in a process of its own; rounds alternate between them, so that whatever else the machine
does hits all of them. A ratio is the median over rounds of (other / llmlab), with its quartiles: above 1,
llmlab is faster.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from .tasks import TASKS, Row


class Side:
    """A worker process that times one round when asked."""

    def __init__(self, task: str, name: str, threads: int, tuned: bool, cpu: bool) -> None:
        settings = [str(threads), str(int(tuned)), str(int(cpu))]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", task, name, *settings]
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | quiet,
        )
        self.times: list[float] = []
        self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed: see its message above")
        return line

    def round(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        seconds = float(self._line())
        self.times.append(seconds)
        return seconds

    def close(self) -> None:
        self.process.communicate()


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine(threads: int) -> str:
    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, value in lines.items()}
        name, flags = found.get("model name", name), found.get("flags", "")
    fast = next((label for flag, label in FLAGS if flag in flags), "no bfloat16 instructions found")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores, {threads} threads, {fast}{load}; torch {version('torch')}"


FLAGS = (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 bfloat16, no AMX"))


def spread(values: list[float]) -> tuple[float, float, float]:
    low, _, high = quantiles(values, n=4)
    return median(values), low, high


def compare(row: Row, rounds: int, *settings: Any) -> list[str]:
    sides = [Side(row.name, name, *settings) for name in row.sides if name == "llmlab" or installed(name)]
    try:
        for i in range(rounds):
            for side in sides if i % 2 else sides[::-1]:
                side.round()
    finally:
        for side in sides:
            side.close()
    ours, lines = sides[0], []
    for side in sides:
        middle, low, high = spread([1e3 * t for t in side.times])
        ratio = "{:.2f} ({:.2f} to {:.2f})".format(
            *spread([b / a for a, b in zip(ours.times, side.times, strict=True)])
        )
        ms = f"{middle:.4g} ({low:.4g} to {high:.4g})"
        lines.append(f"{row.name:26} {side.name:13} {ms:30} {'' if side is ours else ratio}".rstrip())
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="five rounds instead of fifteen")
    parser.add_argument("--rounds", type=int, default=0, help="rounds a side, at least 5")
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tune-peers", action="store_true", help="give the others llmlab's memory settings too")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, on a machine with other work to do")
    asked = parser.parse_args()
    rounds = max(5, asked.rounds or (5 if asked.quick else 15))
    print(machine(asked.threads))
    for name in ("transformers", "peft"):
        found = installed(name)
        missing = f"{name} is not installed: pip install 'llmlab[bench]' to compare with it"
        print(f"{name} {found}" if found else missing)
    clock = "processor time" if asked.cpu_time else "time"
    print(f"{clock}: medians of {rounds} alternating rounds, quartiles in brackets; ratio: other / llmlab\n")
    print(f"{'task':26} {'library':13} {'ms per step or token':30} ratio")
    for name, row in TASKS.items():
        if asked.only in name:
            print("\n".join(compare(row, rounds, asked.threads, asked.tune_peers, asked.cpu_time)), flush=True)


if __name__ == "__main__":
    main()
