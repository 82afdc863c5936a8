"""The whole chain of RLHF on Tinytown, as one script: tiny-gpt learns to answer, to judge, and to be judged.

    python 53_rlhf.py                        about a minute on two cores
    python 53_rlhf.py --steps 20 10 8        shorter
    python 53_rlhf.py --out runs/rlhf        keeps the three runs

The lesson 53_rlhf.ipynb tells what happens here and why.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llmlab import Run, Training, load
from llmlab.data import corpus
from llmlab.data.tinytown import judge
from llmlab_plugins.ppo import PPO
from llmlab_plugins.reward import Reward
from llmlab_plugins.scorer import Scorer
from llmlab_plugins.sft import SFT

COLUMNS = ("ended", "help", "harm", "polite", "reward")


def measure(model, prompts: list[str]) -> dict[str, float]:
    """What the gold judge finds in the model's answers, greedy, and how many come to their end."""
    from llmlab.generate import respond

    said = respond(model, prompts, max_new_tokens=40)
    ended = ((said.tokens == model.tokenizer.eos) & said.mask).any(1).float().mean()
    found = [judge(prompt, text) for prompt, text in zip(prompts, said.text, strict=True)]
    return {"ended": float(ended)} | {
        name: sum(getattr(each, name) for each in found) / len(found) for name in COLUMNS[1:]
    }


def main() -> None:
    """The three stages, and what the judge says after each."""
    parser = argparse.ArgumentParser(description="SFT, a reward model and PPO, one after the other.")
    parser.add_argument("--steps", nargs=3, type=int, default=(60, 60, 60), metavar=("SFT", "REWARD", "PPO"))
    parser.add_argument("--beta", type=float, default=0.1, help="what a nat of distance from the SFT model costs")
    parser.add_argument("--answers", type=int, default=100, help="answers that are judged after each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder to keep the three runs in")
    given = parser.parse_args()

    base = load("tiny-gpt")
    requests = corpus("tinytown", task="requests", size=1000)
    preferences = corpus("tinytown", task="preferences", size=1200)
    prompts = [row["prompt"] for row in requests["test"]][: given.answers]
    found = {"base": measure(base, prompts)}

    def stage(name: str, techniques: list, data, model, steps: int, rate: float, batch_size: int) -> Run:
        training = Training(steps=steps, batch_size=batch_size, learning_rate=rate, evaluate_batches=4)
        run = Run(techniques, data, model=model, training=training, seed=given.seed).fit()
        if given.out:
            run.save(given.out / name)
        return run

    sft = stage("sft", [SFT(answers=0)], requests, base, given.steps[0], 5e-4, 16)
    found["SFT"] = measure(sft.model, prompts)
    reward = stage("reward", [Reward()], preferences, sft.model, given.steps[1], 5e-4, 8)
    scorer = Scorer(str(given.out / "reward") if given.out else reward)
    ppo = stage("ppo", [PPO(beta=given.beta), scorer], requests, sft.model, given.steps[2], 5e-4, 32)
    found["PPO"] = measure(ppo.model, prompts)

    table = Table("after", *COLUMNS, title=f"Tinytown's judge on {len(prompts)} held-out requests")
    for name, row in found.items():
        table.add_row(name, *(f"{row[column]:.2f}" for column in COLUMNS))
    Console().print(table)
    print(f"The reward model agrees with the judge on {reward.metrics['accuracy']:.0%} of held-out pairs.")


if __name__ == "__main__":
    main()
