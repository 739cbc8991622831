"""Perplexity: held-out bounds of a recipe's data, and corpora under published protocols."""
