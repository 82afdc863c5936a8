"""Answers to the exercises of lesson 41."""

from __future__ import annotations

ONE = 2 * 64 * 768 + 768 + 64


def adapter(h, W_down, b_down, W_up, b_up):
    return h + (h @ W_down.T + b_down).relu() @ W_up.T + b_up


def folded(W, b, W_down, b_down, W_up, b_up):
    return W + W_up @ W_down @ W, b + W_up @ (W_down @ b + b_down) + b_up


# name: (a right answer, wrong answers; the first is what one may well believe)
ANSWERS = {
    "adapters.1": (
        24 * ONE,
        [
            24 * 2 * 64 * 768,
            12 * ONE,
            2 * ONE,
            ONE,
            24 * (64 * 768 + 768 + 64),
            24 * (2 * 64 * 768 + 2 * 768),
            24 * (ONE + 2 * 768),
            24 * ONE + 1,
            "2379264",
        ],
    ),
    "adapters.2": (
        adapter,
        [
            lambda h, W_down, b_down, W_up, b_up: (h @ W_down.T + b_down).relu() @ W_up.T + b_up,
            lambda h, W_down, b_down, W_up, b_up: h + (h @ W_down.T + b_down) @ W_up.T + b_up,
            lambda h, W_down, b_down, W_up, b_up: h + (h @ W_down.T + b_down).relu() @ W_up.T,
            lambda h, W_down, b_down, W_up, b_up: h + (h @ W_down.T).relu() @ W_up.T + b_up,
            lambda h, W_down, b_down, W_up, b_up: (h + (h @ W_down.T + b_down) @ W_up.T + b_up).relu(),
            lambda h, W_down, b_down, W_up, b_up: adapter(h, W_down, b_down, W_up, b_up).relu(),
            lambda h, W_down, b_down, W_up, b_up: h + ((h @ W_down.T + b_down).relu() @ W_up.T + b_up).relu(),
            lambda h, W_down, b_down, W_up, b_up: h + (h @ W_down + b_down).relu() @ W_up + b_up,
            lambda h, W_down, b_down, W_up, b_up: h + W_up @ (W_down @ h + b_down).relu() + b_up,
            lambda h, W_down, W_up: h,
            lambda h, W_down, b_down, W_up, b_up: None,
        ],
    ),
    "adapters.3": (
        folded,
        [
            lambda W, b, W_down, b_down, W_up, b_up: (W + W_up @ W_down, b + W_up @ b_down + b_up),
            lambda W, b, W_down, b_down, W_up, b_up: (W_up @ W_down @ W, W_up @ (W_down @ b + b_down) + b_up),
            lambda W, b, W_down, b_down, W_up, b_up: (W + W_up @ W_down @ W, b + W_up @ b_down + b_up),
            lambda W, b, W_down, b_down, W_up, b_up: (W + W_up @ W_down @ W, b + b_up),
            lambda W, b, W_down, b_down, W_up, b_up: (W + W @ W_up @ W_down, b),
            lambda W, b, W_down, b_down, W_up, b_up: W + W_up @ W_down @ W,
            lambda W, b, W_down, b_down, W_up, b_up: [W + W_up @ W_down @ W],
            lambda W, b: (W, b),
        ],
    ),
}
