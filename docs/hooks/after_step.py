"""Enough is enough: training ends when the loss is low."""

from llmlab import Run, Training, corpus, load
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra")
class Enough:
    """Stop as soon as the loss of a step is below a bound."""

    bound: float = knob(2.0, "The loss that is low enough.", low=0.0, high=100.0)

    @hookimpl
    def after_step(self, run, step, metrics):
        if metrics["loss"] < self.bound:
            run.stop(f"the loss is below {self.bound:g}")


run = Run(["sft", Enough(bound=2.0)], corpus("facts"), model=load("tiny-gpt"), training=Training(steps=200))
run.fit(progress=False)
print("stopped early:", run.steps < 200, "because", run.stopped)
