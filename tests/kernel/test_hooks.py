"""The contract between kernel and techniques: who answers, who conflicts, who is blamed."""

from __future__ import annotations

import pytest
import torch

from llmlab import Run, Training
from llmlab.batch import Batch
from llmlab.hooks import EXCLUSIVE, SPECS, Hooks
from llmlab.model import Transformer
from llmlab.technique import hookimpl, knob, technique
from llmlab_plugins.clm import CLM
from llmlab_plugins.lora import LoRA
from llmlab_plugins.sft import SFT


def short(texts, *techniques, **more):
    return Run([CLM(window=16), *techniques], texts, training=Training(steps=2, batch_size=4), **more)


def test_the_hook_list_is_the_design():
    asked = "build_model adapt_model trains before_fit examples batches compute_loss score evaluate after_step"
    assert set(SPECS) == set(asked.split())
    assert set(EXCLUSIVE) == {"build_model", "examples", "batches", "compute_loss"}


def test_two_owners_are_named(texts, tiny):
    with pytest.raises(ValueError, match=r"CLM and SFT both implement batches: choose one"):
        Run([CLM(), SFT()], texts, config=tiny)


def test_no_owner_says_what_to_add(texts, tiny):
    with pytest.raises(ValueError, match=r"add an objective such as clm"):
        Run([LoRA()], texts, config=tiny)


def test_a_class_is_no_instance(texts):
    with pytest.raises(TypeError, match=r"LoRA is a class: write LoRA\(\)"):
        Run([CLM(), LoRA], texts)


def test_the_same_technique_twice(texts, tiny):
    with pytest.raises(ValueError, match="LoRA is in the list twice"):
        Run([CLM(), LoRA(), LoRA(rank=2)], texts, config=tiny)


def test_unknown_hook_names_the_nearest(texts):
    class Typo:
        @hookimpl
        def adapt_modle(self, model): ...

    with pytest.raises(ValueError, match=r"Typo\.adapt_modle is no hook: did you mean adapt_model"):
        Hooks([Typo()])


def test_unknown_argument_of_a_hook():
    class Wrong:
        @hookimpl
        def trains(self, name, colour): ...

    with pytest.raises(ValueError, match=r"Wrong does not fit the hooks of version 1.*colour") as caught:
        Hooks([Wrong()])
    assert "\n" not in str(caught.value)


def test_no_hook_at_all():
    with pytest.raises(TypeError, match="mark its methods with @hookimpl"):
        Hooks([object()])


def test_instances_of_one_run_do_not_meet_those_of_another(texts, tiny):
    seen = []

    class Watch:
        def __init__(self, tag):
            self.tag = tag

        @hookimpl
        def after_step(self, step):
            seen.append((self.tag, step))

    one, other = short(texts, Watch("one"), config=tiny), short(texts, Watch("other"), config=tiny)
    one.fit()
    assert seen == [("one", 1), ("one", 2)]
    other.fit()
    assert seen[2:] == [("other", 1), ("other", 2)]


def test_hooks_are_called_in_list_order(texts, tiny):
    called = []

    def watch(name):
        @technique()
        class Watch:
            @hookimpl
            def after_step(self):
                called.append(name)

        Watch.__name__ = name
        return Watch()

    short(texts, watch("First"), watch("Second"), watch("Third"), config=tiny).fit(1)
    assert called == ["First", "Second", "Third"]


@pytest.mark.parametrize("hook", ["compute_loss", "batches", "adapt_model", "after_step", "examples"])
def test_an_error_names_technique_hook_and_way_out(hook, texts, tiny):
    """Generators too: their errors come while they are read."""
    bad = type("Bad", (), {})

    def fail(self):
        raise RuntimeError("boom")

    def fail_late(self):
        yield Batch({"tokens": torch.ones(1, 3, dtype=torch.long)}, {"labels": torch.ones(1, 3, dtype=torch.long)})
        raise RuntimeError("boom")

    def fail_wrapping(self):
        yield
        raise RuntimeError("boom")

    body = {"batches": fail_late, "examples": fail_wrapping}.get(hook, fail)
    setattr(bad, hook, hookimpl(wrapper=hook == "examples")(body))
    if hook in ("compute_loss", "batches"):

        class Rest:
            @hookimpl
            def batches(self):
                yield Batch({"tokens": torch.ones(1, 3, dtype=torch.long)}, {})

            @hookimpl
            def compute_loss(self, model, output):
                return {"loss": output.hidden.sum()}

        delattr(Rest, hook)
        techniques = [bad(), Rest()]
    else:
        techniques = [CLM(window=16), bad()]
    with pytest.raises(RuntimeError, match="boom") as caught:
        Run(techniques, texts, config=tiny, training=Training(steps=1, batch_size=4)).fit()
    (note,) = caught.value.__notes__
    assert f"raised by Bad in hook {hook} (test_hooks.py, line " in note
    assert "leave Bad out" in note


def test_a_complaint_about_a_knob_blames_no_file(texts, tiny):
    class Picky:
        @hookimpl
        def adapt_model(self, model):
            raise ValueError("Picky.size = 7: must be even")

    with pytest.raises(ValueError, match="must be even") as caught:
        short(texts, Picky(), config=tiny)
    assert not hasattr(caught.value, "__notes__")


def test_blame_sees_through_a_shared_decorator(texts, tiny):
    """Two hooks under `torch.no_grad` run the same wrapper code; only the guilty one is named."""

    class Innocent:
        @hookimpl
        @torch.no_grad()
        def after_step(self):
            pass

    class Guilty:
        @hookimpl
        @torch.no_grad()
        def after_step(self):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError) as caught:
        short(texts, Innocent(), Guilty(), config=tiny).fit(1)
    assert len(caught.value.__notes__) == 1 and "raised by Guilty" in caught.value.__notes__[0]


def test_needs_company_before_any_work(texts, tiny):
    made = []

    @technique(kind="extra", needs=["score"])
    class Needy:
        @hookimpl
        def adapt_model(self, model):
            made.append(model)

        @hookimpl
        def score(self, responses):  # its own answer is no company
            return None

    with pytest.raises(ValueError, match="Needy needs a technique that implements score: add one"):
        short(texts, Needy(), config=tiny)
    assert not made

    class Reward:
        @hookimpl
        def score(self, responses):
            return torch.zeros(len(responses))

    short(texts, Needy(), Reward(), config=tiny)
    assert made


def test_needs_columns_and_family(texts, tiny):
    with pytest.raises(
        ValueError, match=r"SFT needs the columns prompt/response or source/target or text/label; .*text"
    ):
        Run([SFT()], texts, config=tiny)
    with pytest.raises(ValueError, match="CLM works on decoder models, not on this encoder"):
        Run([CLM()], texts, config="bert")


def test_an_objection_to_the_models_shape_is_raised_before_any_work(texts, tiny):
    made = []

    def deeper(technique, config):
        return f"needs {technique.layers} layers, and this model has {config.layers}" * (
            config.layers < technique.layers
        )

    @technique(kind="extra", objection=deeper)
    class Deep:
        layers: int = knob(3, "How many it needs.", low=1)

        @hookimpl
        def adapt_model(self, model):
            made.append(model)

    class Builder:
        @hookimpl
        def build_model(self, config):
            made.append(config)
            return Transformer(config)

    with pytest.raises(ValueError, match=r"^Deep needs 3 layers, and this model has 2$"):
        short(texts, Deep(), config=tiny)
    with pytest.raises(ValueError, match=r"^Deep needs 5 layers, and this model has 4$"):
        short(texts, Deep(layers=5), config="gpt2")
    with pytest.raises(ValueError, match=r"^Deep needs 3 layers, and this model has 2$"):
        short(texts, Deep(), model=short(texts, config=tiny).model)
    assert not made
    with pytest.raises(ValueError, match=r"^Deep needs 3 layers, and this model has 2$"):
        short(texts, Deep(), Builder(), config=tiny)  # what a technique builds is known when it is there
    assert len(made) == 1
    short(texts, Deep(layers=2), config=tiny)
    assert len(made) == 2


def test_scores_are_summed_and_checked(texts, tiny):
    class One:
        @hookimpl
        def score(self, responses):
            return torch.ones(len(responses))

    class Length:
        @hookimpl
        def score(self, responses):
            assert responses.tokens.shape == responses.mask.shape
            return responses.mask.sum(1).float()

    class Wrong:
        @hookimpl
        def score(self, responses):
            return torch.ones(len(responses), 1)

    run = short(texts, One(), Length(), config=tiny)
    answers = run.respond(["Ada", "Ben has"], max_new_tokens=5)
    expected = 1 + answers.mask.sum(1).float()
    assert torch.equal(run.score(["Ada", "Ben has"], answers), expected)
    with pytest.raises(ValueError, match="no technique implements score"):
        short(texts, config=tiny).score(["Ada"], answers)
    with pytest.raises(ValueError, match=r"a reward has shape \(2, 1\): one number a response is \(2,\)"):
        short(texts, Wrong(), config=tiny).score(["Ada", "Ben has"], answers)


def test_a_wrapper_may_add_a_term(texts, tiny):
    class Doubled:
        @hookimpl(wrapper=True)
        def compute_loss(self):
            losses = yield
            return {"loss": 2 * losses["loss"], "single": losses["loss"]}

    run = short(texts, Doubled(), config=tiny).fit(1)
    assert run.history[0]["loss"] == pytest.approx(2 * run.history[0]["single"])


def test_examples_are_made_once_a_split_and_may_be_rewritten(texts, tiny):
    calls = []

    class Shout:
        @hookimpl(wrapper=True)
        def examples(self, split):
            rows = yield
            calls.append(split)
            return [{"text": row["text"].upper()} for row in rows]

    for order in (0, 1):  # a rewriter sees text, before or after the objective in the list
        calls.clear()
        pair = [CLM(window=16), Shout()]
        run = Run(pair[::-1] if order else pair, texts, config=tiny, training=Training(steps=3, batch_size=4))
        run.fit()
        assert sorted(calls) == ["train", "validation"]
        assert "ADA" in run.tokenizer.decode(run.rows("train").tokens)


def test_all_batches_of_a_chunk_are_made_before_any_is_used(texts, tiny):
    weights = []

    class Rolls:
        @hookimpl
        def batches(self, run, examples):
            for _ in range(3):
                weights.append(float(run.model.head.output.weight.sum()))
                assert not run.model.training and not torch.is_grad_enabled()
                tokens = torch.ones(2, 4, dtype=torch.long)
                yield Batch({"tokens": tokens}, {"labels": tokens})

        @hookimpl
        def compute_loss(self, model, batch, output):
            return {"loss": model.loss(output, batch["labels"])}

    Run([Rolls()], {"train": texts["train"]}, config=tiny, training=Training(steps=6, batch_size=4)).fit()
    assert len(weights) == 6
    assert weights[0] == weights[1] == weights[2] != weights[3] == weights[5]


def test_a_loss_must_be_a_dict_with_loss(texts, tiny):
    class Wrong(CLM):
        @hookimpl
        def compute_loss(self, model, batch, output):
            return model.loss(output, batch["labels"])

    with pytest.raises(ValueError, match=r'Wrong.compute_loss must return a dict of scalars with the key "loss"'):
        Run([Wrong()], texts, config=tiny).fit(1)


def test_no_batch_in_a_whole_pass_is_an_error(texts, tiny):
    class Silent(CLM):
        @hookimpl
        def batches(self):
            yield from ()

    with pytest.raises(ValueError, match="Silent made no batch in a whole pass over the data"):
        Run([Silent()], {"train": texts["train"]}, config=tiny).fit(1)


def test_build_model_is_asked_once_and_only_without_a_model(texts, tiny):
    from llmlab.model import Transformer

    class Builder:
        built = 0

        @hookimpl
        def build_model(self, config):
            Builder.built += 1
            return Transformer(config)

    run = short(texts, Builder(), config=tiny)
    assert Builder.built == 1
    short(texts, Builder(), model=run.model)
    assert Builder.built == 1


def test_trace_prints_hook_calls(texts, tiny, monkeypatch, capsys):
    monkeypatch.setenv("LLMLAB_TRACE", "1")
    short(texts, LoRA(), config=tiny).fit(1)
    shown = capsys.readouterr().err
    assert "llmlab: compute_loss -> CLM (" in shown and "llmlab: adapt_model -> LoRA (" in shown


def test_knobs_are_checked():
    with pytest.raises(ValueError, match=r"LoRA.rank = 0: must be 1 to 256"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match=r"LoRA.rank = 2.5: must be a whole number 1 to 256"):
        LoRA(rank=2.5)
    with pytest.raises(ValueError, match=r"LoRA.alpha = nan"):
        LoRA(alpha=float("nan"))
    with pytest.raises(ValueError, match=r"LoRA.rslora = 'yes': must be True or False"):
        LoRA(rslora="yes")
    with pytest.raises(ValueError, match=r"LoRA.targets = 3: must be text"):
        LoRA(targets=3)
    with pytest.raises(TypeError, match="LoRA has no knob 'rnak': did you mean rank"):
        LoRA(rnak=3)
    with pytest.raises(ValueError, match=r"Training.schedule = 'cosin': must be one of cosine, linear"):
        Training(schedule="cosin")
    assert Training(learning_rate=None).learning_rate is None and LoRA(alpha=8).alpha == 8.0


def test_techniques_are_hashable_and_equal_only_to_themselves():
    one, other = LoRA(), LoRA()
    assert len({one, other}) == 2 and one != other


def test_mutable_default_is_refused():
    with pytest.raises(TypeError, match="must be immutable"):
        knob([], "A list.")


def test_a_technique_for_later_hooks_is_refused():
    with pytest.raises(ValueError, match=r"written for version 99 of the hooks; this llmlab has 1: upgrade"):
        technique(api=99)
