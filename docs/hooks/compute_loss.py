"""A term more in the loss, whichever objective made it: a wrapper sees what the others answer."""

from llmlab import Run, Training, corpus, load
from llmlab.technique import hookimpl, knob, technique


@technique(kind="extra")
class SmallState:
    """Keep the last hidden states small, as a second term of the loss."""

    weight: float = knob(0.01, "What the mean square counts beside the loss.", low=0.0, high=10.0)

    @hookimpl(wrapper=True)
    def compute_loss(self, model, batch, output):
        losses = yield
        size = output.hidden.square().mean()  # of (B, T, D)
        return losses | {"loss": losses["loss"] + self.weight * size, "size": size}


for objective, data, model in (("sft", "facts", "tiny-gpt"), ("mlm", "facts", "tiny-bert")):
    run = Run([objective, SmallState()], corpus(data), model=load(model), training=Training(steps=1, batch_size=4))
    run.fit(progress=False)
    print(objective, "has a second term:", "size" in run.history[0])
