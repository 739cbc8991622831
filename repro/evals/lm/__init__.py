"""Tasks of lm-eval (EleutherAI/lm-evaluation-harness 0.4): the model adapter, request encoding, and the components
(parts) that a suite lists as tasks.

Start with `lm_tasks` (the task parts) and `adapter` (the `lm_eval.api.model.LM` that scores and generates).
`prompts` encodes requests, `overrides` compares generation arguments with the sampler, `task_selection` resolves
`--tasks`, and `task_files` stores copies of user-written YAML tasks. Of `repro.evals` this package may import `task`,
`workload`, `work_queue`, `decoding`, `likelihood`, `perplexity` and `suites`. Importing `adapter` imports lm-eval; the
other modules import it only inside functions, so that reading a suite stays fast.
"""
