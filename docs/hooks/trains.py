"""Norms alone train: nothing is built, so the whole technique is one vote."""

from llmlab import Run, corpus, load
from llmlab.technique import hookimpl, technique


@technique(kind="adaptation")
class Norms:
    """Train gains and biases of the norms; freeze everything else."""

    @hookimpl
    def trains(self, name):
        return "norm" in name


run = Run(["sft", Norms()], corpus("facts"), model=load("tiny-gpt"))
print(run.parameters().trainable, "of", run.parameters().total, "numbers train")
both = Run(["sft", Norms(), "bitfit"], corpus("facts"), model=load("tiny-gpt"))  # any True wins
print(both.parameters().trainable, "with BitFit, which votes for the biases")
