"""Judgement: pure functions from claims or facts, policy and reference values to verdicts and violations."""
