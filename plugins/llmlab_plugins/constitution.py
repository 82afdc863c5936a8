"""Constitutional AI: a model mends and judges its own answers by written principles (Bai et al. 2022).

    revise   answer → critique by a principle → revision, `rounds` times         rows of prompt, response
    judge    p = ½ [P(A | x, (A) y₁, (B) y₂) + P(B | x, (A) y₂, (B) y₁)]         rows of prompt, chosen, rejected

P(A) is the next tokens' probability of " (A)", normalised over " (A)" and " (B)". Asking in both orders takes out what
the place is worth: with y₁ and y₂ exchanged p is exactly 1 - p. y₁ is called chosen if p ≥ ½, and p is a soft label.

1. What the model writes ends at its first line break, or after `longest` tokens, or half the context. A revision that
   is empty, or has not come to its end by then, is not taken: the answer stays as it was. A row without an answer is
   left out, and so is a pair of equal ones.
2. A prompt that leaves no room for an answer loses its beginning.
3. The judge sees no chain of thought. The paper clamps such labels to 40-60 %, which is `clamp` = 0.4.
4. The model that trains also writes and judges, as it was before the first step. In the paper a pretrained model learns
   the revisions of all rounds, and a model of its own judges; both are shown examples first.
5. All prompts are answered and revised; the paper revises answers to harmful ones, and adds other answers as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter
from typing import Any

import torch

from llmlab.batch import by_length
from llmlab.data.tinytown.principles import ASK_CRITIQUE, ASK_JUDGEMENT, ASK_REVISION, PRINCIPLES
from llmlab.generate import as_prompt, respond
from llmlab.likelihood import log_likelihood
from llmlab.seeds import generator
from llmlab.surgery import snapshot, swapped
from llmlab.technique import hookimpl, knob, needs_of, technique

ROWS = 32  # texts written at a time, of like length
LABELS = (" (A)", " (B)")  # what a judgement answers
GIVES = {"revise": "prompt response", "judge": "prompt chosen rejected"}
ASKS = {  # what each template must say
    "critique": ("conversation", "answer", "principle"),
    "revision": ("conversation", "answer", "critique"),
    "judgement": ("conversation", "a", "b", "principle"),
}


@technique(kind="extra", columns="prompt", families=["decoder", "encoder-decoder"], gives=lambda c: GIVES[c.stage])
class Constitution:
    """Constitutional AI: answers that the model itself mends, or compares, by written principles."""

    stage: str = knob("revise", "Mend answers, to learn from them; or judge pairs of them.", choices=tuple(GIVES))
    principles: str = knob("\n".join(PRINCIPLES), "The constitution, a principle a line; one is drawn each time.")
    rounds: int = knob(1, "Critiques and revisions of an answer.", low=1, high=16)
    temperature: float = knob(1.0, "At which it writes; 0 takes the likeliest token.", low=0.0, high=10.0)
    longest: int = knob(48, "Tokens an answer, a critique or a revision may have.", low=1, high=4096)
    clamp: float = knob(0.0, "Labels stay this far from 0 and from 1.", low=0.0, high=0.5)
    critique: str = knob(ASK_CRITIQUE, "How a critique is asked for.")
    revision: str = knob(ASK_REVISION, "How a revision is asked for.")
    judgement: str = knob(ASK_JUDGEMENT, "How a judgement, (A) or (B), is asked for.")

    def __post_init__(self) -> None:
        self.listed = [line.strip() for line in self.principles.splitlines() if line.strip()]
        if not self.listed:
            raise ValueError("Constitution.principles: a constitution without principles; write one a line")
        for name, fields in ASKS.items():
            _check_template(name, getattr(self, name), fields)

    @hookimpl
    def before_fit(self, run: Any) -> None:
        run.state[self]["start"] = snapshot(run.model)

    @hookimpl(wrapper=True)
    def examples(self, run: Any, split: str) -> Any:
        given = yield
        self._refuse(run.techniques)
        state = run.state[self]
        written: dict[str, Any] = state.setdefault("written", {})
        if split not in written:
            with swapped(run.model, state.get("start", {})):  # before it learnt from its own words
                make = self.revise if self.stage == "revise" else self.prefer
                written[split] = make(run.model, [row["prompt"] for row in given], (run.seed, "constitution", split))
        return written[split]

    def _refuse(self, techniques: Sequence[Any]) -> None:
        for t in techniques:
            if needs_of(t).on_policy or not needs_of(t).suits(GIVES[self.stage].split()):
                raise ValueError(
                    f"Constitution.stage = {self.stage!r} gives {'/'.join(GIVES[self.stage].split())}, from which "
                    f"{type(t).__name__} does not learn: choose another stage, or leave Constitution out"
                )

    def revise(self, model: Any, prompts: Sequence[str], key: tuple[Any, ...] = (0,)) -> list[dict[str, Any]]:
        """A row for each prompt: its `answer`, and of each round the principle, the critique and the revision."""
        answers = self.write(model, prompts, (*key, "answer"))[0]
        rows: list[dict[str, Any]] = [
            {"prompt": x, "response": y, "answer": y, "principles": [], "critiques": [], "revisions": []}
            for x, y in zip(prompts, answers, strict=True)
        ]
        for i in range(self.rounds):
            asked = [{"conversation": row["prompt"], "answer": row["response"]} for row in rows]
            principles = self.draw(len(rows), (*key, i))
            ask = [self.critique.format(**a, principle=p) for a, p in zip(asked, principles, strict=True)]
            critiques = self.write(model, ask, (*key, i, "critique"))[0]
            ask = [self.revision.format(**a, critique=c) for a, c in zip(asked, critiques, strict=True)]
            revisions, ended = self.write(model, ask, (*key, i, "revision"))
            for j, row in enumerate(rows):
                row["response"] = revisions[j] if ended[j] and revisions[j].strip() else row["response"]
                row["principles"].append(principles[j])
                row["critiques"].append(critiques[j])
                row["revisions"].append(row["response"])
        return [row for row in rows if row["response"].strip()]

    def prefer(self, model: Any, prompts: Sequence[str], key: tuple[Any, ...] = (0,)) -> list[dict[str, Any]]:
        """A row for each prompt to which the model wrote two different answers; `orders` is what each order said."""
        one, other = (self.write(model, prompts, (*key, name))[0] for name in ("one", "other"))
        principles = self.draw(len(prompts), (*key, "judgement"))
        texts = [row for row in zip(prompts, one, other, principles, strict=True) if row[1] != row[2]]
        rows = []
        for (x, y1, y2, principle), (p1, p2) in zip(texts, self.judge(model, texts), strict=True):
            if p1 + p2 < 1:
                y1, y2, p1, p2 = y2, y1, 1 - p2, 1 - p1  # the same two questions, told of the other answer
            least = max(self.clamp, 1e-6)
            p = min(max((p1 + p2) / 2, least), 1 - least)
            row = {"prompt": x, "chosen": y1, "rejected": y2, "preference": p, "principle": principle}
            rows.append(row | {"orders": [p1, p2]})
        return rows

    def judge(self, model: Any, texts: Sequence[tuple[str, str, str, str]]) -> list[tuple[float, float]]:
        """Of each (prompt, y₁, y₂, principle) the probability that y₁ is better: shown as (A), and shown as (B)."""
        ask = self.judgement.format
        first = [ask(conversation=x, a=y1, b=y2, principle=p) for x, y1, y2, p in texts]
        second = [ask(conversation=x, a=y2, b=y1, principle=p) for x, y1, y2, p in texts]
        return list(zip(chance_of_a(model, first), [1 - p for p in chance_of_a(model, second)], strict=True))

    def draw(self, count: int, key: tuple[Any, ...]) -> list[str]:
        """A principle for each of `count` rows."""
        places = (torch.randint(len(self.listed), (), generator=generator(*key, "principle", i)) for i in range(count))
        return [self.listed[int(i)] for i in places]

    def write(self, model: Any, prompts: Sequence[str], key: tuple[Any, ...] = (0,)) -> tuple[list[str], list[bool]]:
        """What the model writes to each prompt, up to a line break; and whether it came to an end there, or itself."""
        new, eos = min(self.longest, model.room // 2), model.tokenizer.eos
        asked = [as_prompt(model, prompt)[-(model.room - new) :] for prompt in prompts]

        def answer(rows: list[int]) -> list[tuple[str, bool]]:
            draws = [generator(*key, i) for i in rows]  # a row's own: whoever is beside it
            settings = {"max_new_tokens": new, "temperature": self.temperature, "draws": draws}
            found = respond(model, [asked[i] for i in rows], **settings)
            ended = ((found.tokens == eos) & found.mask).any(1).tolist()
            return [(t.split("\n")[0].rstrip(), e or "\n" in t) for t, e in zip(found.text, ended, strict=True)]

        written = by_length([len(x) for x in asked], ROWS, answer)
        return [text for text, _ in written], [end for _, end in written]


def chance_of_a(model: Any, prompts: Sequence[str]) -> list[float]:
    """P(" (A)") after each prompt, normalised over " (A)" and " (B)"."""
    room = model.room - max(len(model.tokenizer.encode(label)) for label in LABELS)
    asked = [as_prompt(model, prompt)[-room:] for prompt in prompts]
    a, b = (log_likelihood(model, asked, [label] * len(asked), ROWS) for label in LABELS)
    chances: list[float] = (a - b).sigmoid().tolist()
    return chances


def _check_template(name: str, template: str, fields: Sequence[str]) -> None:
    try:
        said = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"Constitution.{name} is no template: {str(error).lower()}; write {{{{ for a brace") from error
    if missing := [field for field in fields if field not in said]:
        raise ValueError(f"Constitution.{name} lacks {{{missing[0]}}}: it is made of {_braced(fields)}")
    if unknown := sorted(said - set(fields)):
        raise ValueError(f"Constitution.{name} holds {{{unknown[0]}}}, which nobody fills: it has {_braced(fields)}")


def _braced(fields: Sequence[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in fields)
