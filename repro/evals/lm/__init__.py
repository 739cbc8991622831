"""Tasks of lm-eval (EleutherAI/lm-evaluation-harness 0.4): the adapter through which lm-eval calls our models, the
encoding of its requests as token ids, and the components (parts) that a suite lists as tasks.

Start with `lm_tasks` (the task parts) and `adapter` (the `lm_eval.api.model.LM` that scores and generates).
`prompts` encodes requests, `overrides` compares a task's generation arguments with the sampler's settings,
`task_selection` resolves `--tasks`, `task_index` lists the tasks that lm-eval ships, `task_files` stores copies of
user-written YAML tasks, and `task_templates` renders their templates in a sandbox. Of `repro.evals` this package may
import `task`, `workload`, `work_queue`, `decoding`, `likelihood`, `perplexity` and `suites`. Importing `adapter`
imports lm-eval; the other modules import it only inside functions, so that reading a suite stays fast.
"""
