"""What must hold of a technique, for authors to try: `check_technique(MyTechnique)`; in a terminal, `llmlab check`."""
