"""The checks catch techniques that break one rule each, and what is dropped in is tested by itself."""

from __future__ import annotations

import textwrap

import pytest
import torch
from torch import nn

from llmlab.surgery import Wrapper, replace_modules
from llmlab.technique import hookimpl, implemented, needs_of, technique
from llmlab.testing import checks
from llmlab.testing.cases import Case, additions, bare, base, known, stirred, trained, usual

pytestmark = pytest.mark.slow
ALONE = next(  # an objective that brings nothing of its own to train
    case
    for case in bare()
    if case.family == "decoder" and needs_of(case.objective).base and "trains" not in implemented(case.objective)
)
OTHER = next(cls for cls in additions(ALONE) if not needs_of(cls).objection)


class Gain(Wrapper):
    """A trained gain on each number of a layer's output."""

    def __init__(self, layer):
        super().__init__(layer)
        self.own = nn.Parameter(torch.ones(32))

    def forward(self, *given, **named):
        return self.base(*given, **named) * self.own


class Adaptation:
    """What the techniques below have in common: they wrap the feed-forward, and train what their wrapper owns."""

    wrapper = Gain

    @hookimpl
    def adapt_model(self, model):
        replace_modules(model, ["attention", "mlp"], self.wrapper)

    @hookimpl
    def trains(self, name):
        return name.endswith(".own")


@technique(kind="adaptation")
class Sound(Adaptation):
    pass


@technique(kind="adaptation")
class GoesOutside(Adaptation):
    """Wraps past `replace_modules`, so that it sits outside of those who came before."""

    class Added(Gain):
        def forward(self, x):
            return self.base(x) + self.own

    @hookimpl
    def adapt_model(self, model):
        for block in model.decoder.blocks:
            block.mlp = self.Added(block.mlp)


@technique(kind="adaptation")
class FreezesNothing(Adaptation):
    @hookimpl
    def trains(self, name):
        return name.endswith(".own") or None


@technique(kind="adaptation")
class WritesIntoTheBase(Adaptation):
    @hookimpl
    def after_step(self, run):
        run.model.head.output.weight.data.mul_(1.001)


@technique(kind="adaptation")
class CutsTheGradient(Adaptation):
    class wrapper(Gain):
        def forward(self, *given, **named):
            return self.base(*given, **named).detach() * self.own


@technique(kind="adaptation")
class LearnsNothing(Adaptation):
    class wrapper(Gain):
        def forward(self, *given, **named):
            return self.base(*given, **named) + 0 * self.own


@technique(kind="adaptation")
class Forgets(Adaptation):
    """Has a number that no file keeps."""

    class wrapper(Gain):
        steps = 0

        def forward(self, *given, **named):
            return super().forward(*given, **named) * (1 + 0.1 * self.steps)

    @hookimpl
    def after_step(self, run):
        for module in run.model.modules():
            if isinstance(module, self.wrapper):
                module.steps += 1


@technique(kind="adaptation")
class NeedsTheWholeText(Adaptation):
    class wrapper(Gain):
        def forward(self, x, *given, **named):
            return self.base(x, *given, **named) + x.cumsum(1) * self.own


@technique(kind="adaptation")
class MergesWrongly(Adaptation):
    class wrapper(Gain):
        def merged(self):
            return self.base


@technique(kind="adaptation")
class OverflowsInBf16(Adaptation):
    class wrapper(Gain):
        def forward(self, *given, **named):
            y = super().forward(*given, **named)
            return y * float("nan") if y.dtype == torch.bfloat16 else y


CAUGHT = {
    GoesOutside: (lambda case, _: checks.check_orders(case), "differ in the order"),
    FreezesNothing: (lambda case, _: checks.check_counts(trained(case)), "less than the parts alone"),
    WritesIntoTheBase: (lambda case, _: checks.check_untouched(trained(case)), "the given model changed"),
    CutsTheGradient: (lambda case, _: checks.check_reached(trained(case)), "no gradient ever reached"),
    LearnsNothing: (lambda case, _: checks.check_losses(trained(case.alone(LearnsNothing))), "the loss fell by"),
    Forgets: (checks.check_resume, "the losses differ"),
    NeedsTheWholeText: (lambda case, _: checks.check_writing(stirred(trained(case).model)), "cached|close"),
    MergesWrongly: (lambda case, _: checks.check_merge(trained(case)), "not close"),
    OverflowsInBf16: (lambda case, _: checks.check_bf16(case), "the loss is nan"),
}


@pytest.mark.parametrize("broken", CAUGHT, ids=lambda cls: cls.__name__)
def test_what_breaks_a_rule_is_caught(broken, tmp_path):
    check, message = CAUGHT[broken]
    try:
        with pytest.raises((AssertionError, FloatingPointError), match=message):
            check(ALONE.alone(Sound, broken) if broken is GoesOutside else ALONE.alone(OTHER, broken), tmp_path)
    finally:
        if broken is WritesIntoTheBase:  # which the other tests share
            base.cache_clear()
            trained.cache_clear()


def test_a_model_that_forgets_is_caught_too(tmp_path):
    case = ALONE.alone(Forgets)
    with pytest.raises(AssertionError, match="the logits differ"):
        checks.check_saved(case, trained(case).model, tmp_path)


def test_a_detached_base_that_trained_is_caught():
    with pytest.raises(AssertionError, match="it is not the base"):
        checks.check_detach(trained(ALONE.alone(FreezesNothing)))


def everything(case: Case, folder) -> None:
    """All checks of one case."""
    done = trained(case)
    for check in (checks.check_losses, checks.check_untouched, checks.check_reached, checks.check_counts):
        check(done)
    checks.check_orders(case)
    checks.check_resume(case, folder / "run")
    checks.check_saved(case, done.model, folder / "model")
    checks.check_bf16(case)
    if case.adaptations:
        checks.check_detach(done)
        checks.check_merge(done)
    if case.family != "encoder":
        checks.check_writing(stirred(done.model))


def test_what_breaks_no_rule_passes_them_all(tmp_path):
    everything(ALONE.alone(OTHER, Sound), tmp_path)


PLUGIN = '''
    """Scales, and an objective that learns from rewards: a third party's techniques."""

    import torch
    from torch import nn

    from llmlab.batch import Batch
    from llmlab.rollout import rollout
    from llmlab.surgery import Wrapper, replace_modules
    from llmlab.technique import hookimpl, knob, technique


    class Scale(Wrapper):
        def __init__(self, layer, width):
            super().__init__(layer)
            self.scale = nn.Parameter(torch.ones(width))

        def forward(self, *given, **named):
            return self.base(*given, **named) * self.scale


    @technique(kind="adaptation")
    class Scales:
        """Multiply what each attention and feed-forward adds by trained numbers."""

        @hookimpl
        def adapt_model(self, model):
            replace_modules(model, ["attention", "mlp"], lambda layer: Scale(layer, model.config.width))

        @hookimpl
        def trains(self, name):
            return name.endswith(".scale")


    @technique(kind="objective", columns="prompt", families=["decoder"], needs=["score"], on_policy=True)
    class Reinforces:
        """Raise the log-probability of what is rewarded."""

        @hookimpl
        def batches(self, run, examples):
            prompts = [[run.tokenizer.bos, *run.tokenizer.encode(row["prompt"])] for row in examples]
            rolled = rollout(run.model, prompts, max_new_tokens=3, draws=examples.generators("roll"))
            rewards = run.score([row["prompt"] for row in examples], rolled.responses)
            yield Batch(rolled.inputs, {"labels": rolled.labels, "rewards": rewards})

        @hookimpl
        def compute_loss(self, model, batch, output):
            return {"loss": -(model.logprobs(output, batch["labels"]).sum(-1) * batch["rewards"]).mean()}
'''


def test_a_plugin_that_is_dropped_in_is_in_the_matrix(tmp_path, monkeypatch):
    before = set(usual())
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(textwrap.dedent(PLUGIN))
    monkeypatch.setenv("LLMLAB_PLUGINS", str(tmp_path / "plugins"))
    new = {frozenset(case.techniques): case for case in usual() if case not in before}
    scales, reinforces = (
        next(cls for cls in known(kind) if cls.__module__ == "llmlab_dropin_mine")
        for kind in ("adaptation", "objective")
    )
    for case in bare():
        assert frozenset({case.objective, scales}) in new
        assert all(frozenset({case.objective, scales, cls}) in new for cls in known("adaptation"))
    everything(ALONE.alone(scales), tmp_path / "one")
    everything(new[frozenset({reinforces, scales})], tmp_path / "two")
