"""Only short answers are learnt: rows of text on their way to the objective."""

from llmlab import Run, corpus, load
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra", columns="prompt response")
class Short:
    """Leave out training rows with a long response."""

    letters: int = knob(8, "The longest response that is learnt.", low=1, high=10_000)

    @hookimpl(wrapper=True)
    def examples(self, run, split):
        rows = yield  # what the data, or whoever comes before, gives
        if split != "train":
            return rows
        return [row for row in rows if len(row["response"]) <= self.letters]


data = corpus("facts")
run = Run(["sft", Short(letters=8)], data, model=load("tiny-gpt"))
print(len(run.rows("train")), "of", len(data["train"]), "rows to train on")
print("the longest is", max(len(pair["response"]) for pair in run.rows("train").pairs), "letters long")
