"""Duo on OpenWebText: uniform noise, a relaxed curriculum for half the run, then the discrete bound.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.duo_owt
Toy      python -m repro.recipes.duo_owt --scale nano         one core, no download
Cost     8 x H100, 39 hours (--plan: arithmetic at 40 % of the peak, not measured)
Expect   Duo 25.2 perplexity (bound) on the last 100,000 documents (arXiv 2506.10892, table 1)
Source   s-sahoo/duo at 7c9b498, scripts/train_owt_duo.sh; the same repository trains all three families
Departs  sparse soft tokens and an exact T (docs/method.md#transformation-operator, docs/method.md#sparse-soft-tokens)
instead of dense ones and a table of 100,000 points; one
         common shift of the stratified times of a step instead of one a row;
         the BOS and EOS that a row stands between are neither noised nor scored (theirs: both)
"""

from repro.core.schedules import Constant, ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import Packed
from repro.data.pretrained import Pretrained
from repro.models.dit import Dit, WithDropout
from repro.objectives.elbo import DuoElbo
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import GlobalBatch
from repro.objectives.soft_tokens import Sparse
from repro.processes.uniform import Uniform
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="duo_owt",  # repro/registry.py
    data=Counted(
        data=Packed(
            documents=Hub(
                source="Skylion007/openwebtext",  # s-sahoo/duo dataloader.py:550-567 says `openwebtext`, its older name
                config=None,  # it has one
                revision=UNRESOLVED,  # the papers pin none; resolved by the first online run
                split="train[:-100000]",  # s-sahoo/duo dataloader.py:550-557
                heldout_split="train[-100000:]",  # s-sahoo/duo dataloader.py:558-567
                column="text",  # s-sahoo/duo dataloader.py:635
            ),
            units=Pretrained(
                source="gpt2",  # s-sahoo/duo configs/data/openwebtext-split.yaml
                revision=UNRESOLVED,  # the papers pin none
                size=50_258,  # gpt2 and a pad, dataloader.py:749-750 (docs/method.md#transformation-operator)
                begin=50_256,  # gpt2: its end of text stands for BOS as well
                end=50_256,  # gpt2: <|endoftext|>
                pad=50_257,  # s-sahoo/duo dataloader.py:749-750; no wrapped row holds it
                mask=50_257,  # ours: unused; an id of its own would be a row that the authors' network lacks
            ),
            length=1024,  # s-sahoo/duo scripts: model.length=1024 (docs/method.md#duo-hyperparameters)
            batch=1000,  # datasets.map: its batch size, not set in dataloader.py:695-710 (docs/method.md#packing)
        ),
        rows=8_700_000,  # ours, expected: 9.0e9 ids of 8.0 M documents (nanoGPT's count), / 1,022 a row
    ),
    backbone=WithDropout(
        backbone=Dit(
            layers=12,  # s-sahoo/duo configs/model/small.yaml: n_blocks
            width=768,  # s-sahoo/duo configs/model/small.yaml: hidden_size
            heads=12,  # s-sahoo/duo configs/model/small.yaml: n_heads
            ffn=3072,  # s-sahoo/duo models/dit.py: mlp_ratio 4 (docs/method.md#duo-hyperparameters)
            condition=128,  # s-sahoo/duo configs/model/small.yaml: cond_dim
            frequencies=256,  # s-sahoo/duo models/dit.py: sinusoids of the embedder (docs/method.md#dit)
            alpha_end=1e-3,  # s-sahoo/duo configs/algo/duo.yaml: time_conditioning True (docs/method.md#dit)
            rope_base=10_000.0,  # s-sahoo/duo models/dit.py: rotary base (docs/method.md#duo-hyperparameters)
            norm_eps=1e-5,  # torch: layer_norm's default
        ),
        rate=0.1,  # s-sahoo/duo configs/model/small.yaml: dropout
    ),
    process=Uniform(
        alpha_end=1e-3,  # s-sahoo/duo configs/noise/log-linear.yaml: alpha(t) = 1 - (1 - 1e-3) t
        eps=1e-3,  # s-sahoo/duo configs/config.yaml: sampling_eps
    ),
    objective=DuoElbo(
        window=GammaWindow(
            low=-3.55,  # s-sahoo/duo scripts/train_owt_duo.sh: gamma_min
            high=-1.85,  # s-sahoo/duo scripts/train_owt_duo.sh: gamma_max
        ),
        temperature=Constant(
            value=1e-3,  # s-sahoo/duo scripts/train_owt_duo.sh: gumbel_tau_log10 -3 from start to end
        ),
        tokens=Sparse(
            mass=0.9999,  # ours: same law as dense (tested)
        ),
        until=500_000,  # s-sahoo/duo scripts/train_owt_duo.sh: curriculum.end
        eps=1e-3,  # s-sahoo/duo configs/config.yaml: sampling_eps
        group=GlobalBatch(),  # s-sahoo/duo trainer_base.py:432-434: divided by the token count
    ),
    optimizer=AdamW(
        lr=3e-4,  # s-sahoo/duo configs/config.yaml: optim.lr
        betas=(0.9, 0.999),  # s-sahoo/duo configs/config.yaml: beta1, beta2
        eps=1e-8,  # s-sahoo/duo configs/config.yaml: optim.eps
        weight_decay=0.0,  # s-sahoo/duo configs/config.yaml: optim.weight_decay
        clip=1.0,  # s-sahoo/duo configs/config.yaml: gradient_clip_val
    ),
    learning_rate=ConstantWithWarmup(
        warmup=2500,  # s-sahoo/duo configs/lr_scheduler/constant_warmup.yaml
    ),
    ema=Ema(
        decay=0.9999,  # s-sahoo/duo configs/config.yaml: training.ema
    ),
    precision="bf16_autocast",  # s-sahoo/duo configs/config.yaml: trainer.precision bf16, Lightning's autocast
    batch=512,  # s-sahoo/duo configs/config.yaml: global_batch_size
    micro_batch=32,  # s-sahoo/duo scripts/train_owt_duo.sh: loader.batch_size
    steps=1_000_000,  # s-sahoo/duo configs/config.yaml: trainer.max_steps
    log_every=100,  # s-sahoo/duo configs/config.yaml: log_every_n_steps
    heldout_every=5000,  # s-sahoo/duo configs/config.yaml: val_check_interval
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # s-sahoo/duo configs/callbacks/checkpoint_every_n_steps.yaml
    teacher=None,  # nothing is distilled
    suite="duo_owt",  # ours: evals/suites/duo_owt.toml
)

if __name__ == "__main__":
    main(RECIPE)
