"""A decoder half as deep, made by a technique when the run is given no model."""

from dataclasses import replace

from llmlab import ModelConfig, Run, corpus
from llmlab.model import Transformer
from llmlab.technique import hookimpl, technique


@technique(kind="extra")
class Shallow:
    """Make the model with half of its layers."""

    @hookimpl
    def build_model(self, config):
        return Transformer(replace(config, layers=max(1, config.layers // 2)))


config = ModelConfig(vocab_size=400, context=64, layers=4, heads=2, width=32)
for techniques in (["clm"], ["clm", Shallow()]):
    run = Run(techniques, corpus("facts"), config=config)
    print("with" if Shallow in map(type, run.techniques) else "without", "it:", run.model.config.layers, "layers")
