"""What must hold of a technique, for authors to try: `check_technique(MyTechnique)`; in a terminal, `llmlab check`.

`conformance` has the suite, `declared` and `running` its rules. `cases` makes small runs of any techniques together;
`checks` says what must hold of them. Under pytest, `check_technique` is also a fixture.
"""

from . import declared, running  # noqa: F401  # their rules add themselves, in this order
from .conformance import CHECKS, Check, DoesNotApply, Result, check_technique, each_run, examine, rule

__all__ = ["CHECKS", "Check", "DoesNotApply", "Result", "check_technique", "each_run", "examine", "rule"]
