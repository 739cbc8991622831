"""Other programs that decode (engines), reached over HTTP or run here, and the check that two of them agree.

Start with `engine` (what an engine is asked and what it answers). `http` makes requests with retries, `openai` speaks
the protocol of OpenAI-compatible servers, `local` answers the same questions by our own decoding of a checkpoint.
`tasks` and `request` run tasks of lm-eval on an engine (`python -m repro.evals --engine openai:URL`); `check`,
`comparisons` and `findings` compare two engines (`repro engine-check A B`); `canvas` lets any sampler decode with a
denoiser behind a server. Nothing here opens a connection unless an engine is named.
"""
