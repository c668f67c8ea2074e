"""What the authors of policy work with, before an authority reads it: checks, explanations, tests, comparisons."""
