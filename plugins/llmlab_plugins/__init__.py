"""The techniques that ship with llmlab, one file each."""
