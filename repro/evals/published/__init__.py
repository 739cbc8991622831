"""Published numbers: what they are, what would answer them, and whether our records do."""
