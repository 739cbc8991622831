"""MDLM on LM1B, one sentence a row: absorbing noise, the exact bound, a DiT that is not told the time.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.mdlm_lm1b
Toy      python -m repro.recipes.mdlm_lm1b --scale nano         one core, no download
Cost     8 x H100, 3.8 hours (--plan: arithmetic at 40 % of the peak, not measured)
Expect   MDLM 27.0 perplexity (bound) on the test split (arXiv 2506.10892, table 1); packed: 31.8
Source   s-sahoo/duo at 7c9b498, scripts/train_lm1b_mdlm.sh; the same repository trains all three families
Packed   published too; --set data.data={"part": "packed", "batch": 1000, documents, units, length as here}
Departs  one common shift of the stratified times of a step instead of one a row;
         a row's BOS (packed: its EOS too) is neither noised nor scored (theirs: both)
"""

from repro.core.schedules import ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.detokenise import Detokenised
from repro.data.documents import Hub
from repro.data.packed import Padded
from repro.data.pretrained import Pretrained
from repro.models.dit import Dit, WithDropout
from repro.objectives.elbo import Elbo
from repro.objectives.objective import GlobalBatch
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="mdlm_lm1b",  # repro/registry.py
    data=Counted(
        data=Padded(
            documents=Detokenised(
                documents=Hub(
                    source="dvruette/lm1b",  # ours: a copy; the loader script of `lm1b` no longer runs
                    config=None,  # unknown until it is read
                    revision=UNRESOLVED,  # the papers pin none; resolved by the first online run
                    split="train",  # s-sahoo/duo configs/data/lm1b.yaml
                    heldout_split="test",  # s-sahoo/duo dataloader.py:788: LM1B is validated on its test split
                    column="text",  # s-sahoo/duo dataloader.py:635
                ),
                rule="lm1b",  # s-sahoo/duo dataloader.py:613-614
            ),
            units=Pretrained(
                source="bert-base-uncased",  # s-sahoo/duo configs/data/lm1b.yaml
                revision=UNRESOLVED,  # the papers pin none
                size=30_522,  # bert-base-uncased: vocab_size (docs/method.md#duo-hyperparameters)
                begin=101,  # bert-base-uncased: [CLS], taken for BOS (dataloader.py:737-742)
                end=102,  # bert-base-uncased: [SEP], taken for EOS (dataloader.py:743-748)
                pad=0,  # bert-base-uncased: [PAD]
                mask=103,  # bert-base-uncased: [MASK]
            ),
            length=128,  # s-sahoo/duo scripts: model.length=128 (docs/method.md#duo-hyperparameters)
        ),
        rows=30_301_028,  # expected: sentences of the benchmark's training split (its page at TensorFlow datasets)
    ),
    backbone=WithDropout(
        backbone=Dit(
            layers=12,  # s-sahoo/duo configs/model/small.yaml: n_blocks
            width=768,  # s-sahoo/duo configs/model/small.yaml: hidden_size
            heads=12,  # s-sahoo/duo configs/model/small.yaml: n_heads
            ffn=3072,  # s-sahoo/duo models/dit.py: mlp_ratio 4 (docs/method.md#duo-hyperparameters)
            condition=128,  # s-sahoo/duo configs/model/small.yaml: cond_dim
            frequencies=256,  # s-sahoo/duo models/dit.py: sinusoids of the embedder (docs/method.md#dit)
            alpha_end=None,  # s-sahoo/duo configs/algo/mdlm.yaml: time_conditioning False, sigma is told as 0
            rope_base=10_000.0,  # s-sahoo/duo models/dit.py: rotary base (docs/method.md#duo-hyperparameters)
            norm_eps=1e-5,  # torch: layer_norm's default
        ),
        rate=0.1,  # s-sahoo/duo configs/model/small.yaml: dropout
    ),
    process=Absorbing(),  # docs/method.md#mdlm
    objective=Elbo(
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
    micro_batch=64,  # s-sahoo/duo scripts/train_lm1b_mdlm.sh: loader.batch_size
    steps=1_000_000,  # s-sahoo/duo configs/config.yaml: trainer.max_steps
    log_every=100,  # s-sahoo/duo configs/config.yaml: log_every_n_steps
    heldout_every=5000,  # s-sahoo/duo configs/config.yaml: val_check_interval
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # s-sahoo/duo configs/callbacks/checkpoint_every_n_steps.yaml
    teacher=None,  # nothing is distilled
    suite="lm1b",  # ours: evals/suites/lm1b.toml
)

if __name__ == "__main__":
    main(RECIPE)
