"""A number to watch: how long the answers are that the model writes."""

from llmlab import Run, Training, corpus, load
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra", columns="prompt response")
class Length:
    """Measure the mean length of some answers."""

    answers: int = knob(4, "How many answers are written.", low=1, high=1000)

    @hookimpl
    def evaluate(self, run, split):
        prompts = [row["prompt"] for row in run.corpus[split][: self.answers]]
        written = run.respond(prompts, max_new_tokens=16)
        return {"length": float(written.mask.sum(1).float().mean())}


run = Run(["sft", Length()], corpus("facts"), model=load("tiny-gpt"), training=Training(steps=2, evaluate_every=1))
run.fit(progress=False)
print("measured at steps", [found["step"] for found in run.evaluations])
print("a length of 1 to 16 tokens:", all(1 <= found["length"] <= 16 for found in run.evaluations))
