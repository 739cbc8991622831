"""Log-likelihoods of continuations: estimators, each a sum in nats with its standard error and its cost in forwards.

Start with `likelihood` (the interface) and `estimator_presets` (estimators by name). `batched` forwards masked inputs;
`estimators` and `levels` draw masked sets, `orders` follows the chain rule, `guided` adds classifier-free guidance.
May import only rooms below `evals`; nothing else of `repro.evals`. The equations are in
docs/method.md#llada-likelihood.
"""
