"""Estimators of the log-likelihood of a continuation given a prompt, for diffusion and left-to-right models. Each
returns a sum in nats, its standard error, and its cost in forward passes.

Start with `likelihood` (the interface) and `estimator_presets` (estimators by name). `batched` forwards masked inputs;
`estimators` and `levels` draw masked sets, `orders` follows the chain rule, `guided` adds classifier-free guidance. May
import only packages below `evals`, and nothing else of `repro.evals`. The equations are in
docs/method.md#llada-likelihood.
"""
