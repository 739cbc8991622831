"""Stored answers: records, the store, differences between two questions, tables, the reproduction test."""
