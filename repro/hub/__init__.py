"""Weights in their authors' own layouts: recognised, mapped with a strict account, opened, converted."""
