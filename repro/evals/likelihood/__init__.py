"""Likelihoods of continuations: estimators, each a sum with its standard error, and what they cost."""
