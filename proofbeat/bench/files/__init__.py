"""The measurer by itself on a large tree, beside what an operator would otherwise run over it."""
