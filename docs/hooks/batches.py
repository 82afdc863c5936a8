"""An objective of one's own: rows of text become tensors here, and a loss in `compute_loss`."""

from llmlab import Run, Training, corpus, load
from llmlab.batch import Batch
from llmlab.generate import as_prompt
from llmlab.rollout import lined_up
from llmlab.technique import hookimpl, technique


@technique(kind="objective", columns="prompt response", families=["decoder", "encoder-decoder"], learning_rate=1e-3)
class Answers:
    """Learn responses, the shorter half of a chunk first."""

    @hookimpl
    def batches(self, run, examples):
        rows = sorted(examples, key=lambda row: len(row["response"]))
        for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):  # each of them is one step
            prompts = [as_prompt(run.model, row["prompt"]) for row in part]
            responses = [[*run.tokenizer.encode(row["response"]), run.tokenizer.eos] for row in part]
            inputs, labels = lined_up(run.model, prompts, responses)
            yield Batch(inputs, {"labels": labels})

    @hookimpl
    def compute_loss(self, model, batch, output):
        return {"loss": model.loss(output, batch["labels"])}


run = Run([Answers()], corpus("facts"), model=load("tiny-gpt"), training=Training(steps=40, batch_size=8))
run.fit(progress=False)
print("it learns:", run.evaluations[-1]["loss"] < run.evaluations[0]["loss"] - 0.5)
print(run.position.chunk, "chunks of eight rows made", run.steps, "steps")
