"""Template: the rules that every technique keeps; and what it is for."""

from __future__ import annotations

from llmlab_plugins.template import Template


def test_it_keeps_the_rules(check_technique):
    check_technique(Template)
