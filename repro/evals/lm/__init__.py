"""lm-eval's tasks: our adapter, requests as prompts, and the tasks of suites."""
