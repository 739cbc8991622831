"""Foundations without torch: parts and their registry, errors, random numbers, files, command lines, statistics,
schedules."""
