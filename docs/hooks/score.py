"""A reward by rule: answers are to be short. PPO asks for it, and knows nothing of it."""

from llmlab import Run, Training, corpus, load
from llmlab.technique import hookimpl, technique


@technique(kind="extra")
class Brevity:
    """Take a tenth off for every token of the response."""

    @hookimpl
    def score(self, responses):
        return -0.1 * responses.mask.sum(1).float()  # (B,)


settings = Training(steps=4, batch_size=8)
run = Run(["ppo", Brevity()], corpus("tinytown:requests"), model=load("tiny-gpt"), training=settings)
responses = run.respond(["User: Hello.\nAssistant:"], max_new_tokens=8)
print(responses.mask.sum().item(), "tokens score", round(run.score(["User: Hello.\nAssistant:"], responses).item(), 2))
run.fit(progress=False)
print("rewards were asked for:", "score" in run.history[-1])
