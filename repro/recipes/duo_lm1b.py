"""Duo on LM1B, one sentence per row: uniform noise, a curriculum with soft tokens for half the run, then the NELBO.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.duo_lm1b
Toy      python -m repro.recipes.duo_lm1b --scale nano         one core, no download
Cost     8 x H100, 3.8 hours (--plan: arithmetic at 40 % of the peak, not measured)
Expect   Duo 29.9 perplexity (bound) on the test split (arXiv 2506.10892, table 1); packed: 33.7;
         published numbers leave out the bound's prior and tail terms, as `--tasks PROTOCOL.truncated` does here
Source   s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh
Packed   for rows of joined sentences, for which numbers are published too: --set data.data={"part": "packed",
         "batch": 1000, ...} with the fields documents, units and length of this file
Departs  soft tokens are sparse (docs/method.md#sparse-soft-tokens), not dense, and T(A) is computed exactly
         (docs/method.md#transformation-operator), not from a table of 100,000 points; the stratified diffusion times
         of a step share one random shift (the original: one per row); the BOS of a row (in packed rows also the
         EOS) is neither noised nor scored (the original: both)
"""

from repro.core.schedules import ConstantUntil, ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.detokenise import Detokenised
from repro.data.documents import Hub
from repro.data.packed import Padded
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
    name="duo_lm1b",  # ours: its name in repro/core/registry.py
    data=Counted(
        data=Padded(
            documents=Detokenised(
                documents=Hub(
                    source="dvruette/lm1b",  # ours: a copy; the loader script of `lm1b` no longer runs
                    config=None,  # ours: not known until the copy is read
                    revision=UNRESOLVED,  # not pinned by the papers; resolved by the first online run
                    split="train",  # s-sahoo/duo@7c9b498 configs/data/lm1b.yaml:1
                    heldout_split="test",  # s-sahoo/duo@7c9b498 dataloader.py:788-789: validated on the test split
                    column="text",  # s-sahoo/duo@7c9b498 dataloader.py:638
                ),
                rule="lm1b",  # s-sahoo/duo@7c9b498 dataloader.py:613-614
            ),
            units=Pretrained(
                source="bert-base-uncased",  # s-sahoo/duo@7c9b498 configs/data/lm1b.yaml:4
                revision=UNRESOLVED,  # not pinned by the papers
                size=30_522,  # transformers 4.53.1 models/bert/configuration_bert.py:101: vocab_size
                begin=101,  # s-sahoo/duo@7c9b498 dataloader.py:737-742: BOS is [CLS], line 102 of vocab.txt
                end=102,  # s-sahoo/duo@7c9b498 dataloader.py:743-748: EOS is [SEP], line 103 of vocab.txt
                pad=0,  # transformers 4.53.1 models/bert/configuration_bert.py:113: pad_token_id
                mask=103,  # s-sahoo/duo@7c9b498 trainer_base.py:869: [MASK], line 104 of vocab.txt
            ),
            length=128,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:26
        ),
        rows=30_301_028,  # ours: expected, sentences of the training split (lm1b's page at TensorFlow Datasets)
    ),
    backbone=WithDropout(
        backbone=Dit(
            layers=12,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:6: n_blocks
            width=768,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:3: hidden_size
            heads=12,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:7: n_heads
            ffn=3072,  # s-sahoo/duo@7c9b498 models/dit.py:307: mlp_ratio 4
            condition=128,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:4: cond_dim
            frequencies=256,  # s-sahoo/duo@7c9b498 models/dit.py:180: sinusoids of the embedder
            alpha_end=1e-3,  # s-sahoo/duo@7c9b498 configs/algo/duo.yaml:4: time_conditioning True
            rope_base=10_000.0,  # s-sahoo/duo@7c9b498 models/dit.py:82: rotary base
            norm_eps=1e-5,  # s-sahoo/duo@7c9b498 models/dit.py:159: torch's default
        ),
        rate=0.1,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:9: dropout
    ),
    process=Uniform(
        alpha_end=1e-3,  # s-sahoo/duo@7c9b498 configs/noise/log-linear.yaml:2: alpha(t) = 1 - (1 - 1e-3) t
        eps=1e-3,  # s-sahoo/duo@7c9b498 configs/config.yaml:56: sampling_eps
    ),
    objective=DuoElbo(
        window=GammaWindow(
            low=-3.5,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:30: gamma_min
            high=-1.75,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:31: gamma_max
        ),
        temperature=ConstantUntil(
            value=1e-3,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:28-29: log10 start = end = -3
            end=500_000,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:33: curriculum.end
            after=1e-10,  # s-sahoo/duo@7c9b498 algo.py:531-532: tau = -10, in log10
        ),
        tokens=Sparse(
            mass=0.9999,  # ours: same law as dense soft tokens (tested)
        ),
        until=500_000,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:33: curriculum.end
        eps=1e-3,  # s-sahoo/duo@7c9b498 configs/config.yaml:56: sampling_eps
        group=GlobalBatch(),  # s-sahoo/duo@7c9b498 trainer_base.py:432-434: divided by the token count
    ),
    optimizer=AdamW(
        lr=3e-4,  # s-sahoo/duo@7c9b498 configs/config.yaml:74
        betas=(0.9, 0.999),  # s-sahoo/duo@7c9b498 configs/config.yaml:75-76
        eps=1e-8,  # s-sahoo/duo@7c9b498 configs/config.yaml:77
        weight_decay=0.0,  # s-sahoo/duo@7c9b498 configs/config.yaml:73
        clip=1.0,  # s-sahoo/duo@7c9b498 configs/config.yaml:85: gradient_clip_val
    ),
    learning_rate=ConstantWithWarmup(
        warmup=2500,  # s-sahoo/duo@7c9b498 configs/lr_scheduler/constant_warmup.yaml:2
    ),
    ema=Ema(
        decay=0.9999,  # s-sahoo/duo@7c9b498 configs/config.yaml:53; models/ema.py:41-44: the warm-up of the decay
    ),
    precision="bf16_autocast",  # s-sahoo/duo@7c9b498 configs/config.yaml:86: bf16, Lightning's autocast
    batch=512,  # s-sahoo/duo@7c9b498 configs/config.yaml:17: global_batch_size
    micro_batch=64,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_duo.sh:20: loader.batch_size
    steps=1_000_000,  # s-sahoo/duo@7c9b498 configs/config.yaml:88: max_steps
    log_every=100,  # s-sahoo/duo@7c9b498 configs/config.yaml:89: log_every_n_steps
    heldout_every=5000,  # s-sahoo/duo@7c9b498 configs/config.yaml:92: val_check_interval
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # s-sahoo/duo@7c9b498 configs/callbacks/checkpoint_every_n_steps.yaml:8
    teacher=None,  # ours: nothing is distilled
    suite="lm1b",  # ours: evals/suites/lm1b.toml
)

if __name__ == "__main__":
    main(RECIPE)
