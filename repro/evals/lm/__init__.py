"""lm-eval (EleutherAI/lm-evaluation-harness 0.4) tasks: the model adapter, request encoding, and the task parts.

Start with `lm_tasks` (the parts of a suite) and `adapter` (the `lm_eval.api.model.LM` that scores and generates).
`prompts` encodes requests, `overrides` compares generation arguments with the sampler, `task_selection` resolves
`--tasks`, and `task_files` stores copies of user-written YAML tasks. Of `repro.evals` this room may import `task`,
`workload`, `work_queue`, `decoding`, `likelihood`, `perplexity` and `suites`. Importing `adapter` imports lm-eval; the
other modules import it only inside functions, so that reading a suite stays fast.
"""
