"""What a run remembers from before its first step, and keeps when it is saved and loaded."""

import tempfile

from llmlab import Run, Training, corpus, load
from llmlab.surgery import named_parameters, snapshot
from llmlab.technique import hookimpl, technique


@technique(kind="extra")
class Distance:
    """Measure how far the weights have gone from where they were."""

    @hookimpl
    def before_fit(self, run):
        run.state[self]["start"] = snapshot(run.model)

    @hookimpl
    def evaluate(self, run, split):
        start = run.state[self]["start"]
        gone = [(p - start[name]).square().sum() for name, p in named_parameters(run.model) if name in start]
        return {"distance": float(sum(gone)) ** 0.5}


run = Run(["sft", Distance()], corpus("facts"), model=load("tiny-gpt"), training=Training(steps=2, batch_size=4))
run.fit(progress=False)
print("distance before any step:", run.evaluations[0]["distance"])
with tempfile.TemporaryDirectory() as folder:
    run.save(folder)
    loaded = Run.load(folder, corpus("facts"), [Distance()])
print("a loaded run knows the start:", loaded.evaluate("validation", batches=1)["distance"] == run.metrics["distance"])
