"""Measure claims with three seeds, and with their bugs: python -m tests.claims [NAME …]; all of them: CLAIMS.md."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from . import CLAIMS, SEEDS, Claim, Numbers, measured, mutated
from .table import digits, write


def tell(one: Claim, name: str, measure: Callable[[], Numbers]) -> None:
    begun = time.process_time()
    found = measure()
    spent, numbers = time.process_time() - begun, digits(one, found).replace("<br>", ", ")
    print(f"  {name:6} {numbers:24} {'; '.join(one.broken(found)) or 'holds'} ({spent:.1f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.claims", description=__doc__)
    parser.add_argument("names", nargs="*", help="techniques, or claims such as lora.near; none: all, into CLAIMS.md")
    parser.add_argument("--quick", action="store_true", help="one seed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for one in CLAIMS:
        if asked.names and not {str(one), one.technique} & set(asked.names):
            continue
        print(f"{one}: {one.sentence}", flush=True)
        for seed in SEEDS[: 1 if asked.quick else None]:
            tell(one, f"seed {seed}", lambda one=one, seed=seed: measured(one, seed))
        tell(one, "bug", lambda one=one: mutated(one))
    if not asked.names and not asked.quick:
        write()


if __name__ == "__main__":
    main()
