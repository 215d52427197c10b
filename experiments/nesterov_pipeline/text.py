"""The text: one that a grammar makes, or tiny_shakespeare, as arrays of character numbers."""

from experiments.datasets import Text, grammar_text, shakespeare

__all__ = ["Text", "grammar_text", "shakespeare"]
