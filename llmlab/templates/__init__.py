"""What `llmlab new` copies, with a new name in the place of `template`: real code, which runs and keeps the rules."""
