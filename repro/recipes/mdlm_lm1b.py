"""MDLM on LM1B, one sentence per row: absorbing noise, the exact NELBO, a DiT without time conditioning.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.mdlm_lm1b
Toy      python -m repro.recipes.mdlm_lm1b --scale nano         one core, no download
Cost     8 x H100, 3.8 hours (--plan: arithmetic at 40 % of the peak, not measured)
Expect   MDLM 27.0 perplexity (bound) on the test split (arXiv 2506.10892, table 1); packed: 31.8;
         published numbers leave out the bound's prior and tail terms, as `--tasks PROTOCOL.truncated` does here
Source   s-sahoo/duo@7c9b498 scripts/train_lm1b_mdlm.sh
Packed   for rows of joined sentences, for which numbers are published too: --set data.data={"part": "packed",
         "batch": 1000, ...} with the fields documents, units and length of this file
Departs  the stratified diffusion times of a step share one random shift (the original: one per row);
         the BOS of a row (in packed rows also the EOS) is neither noised nor scored (the original: both)
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
    name="mdlm_lm1b",  # ours: its name in repro/core/registry.py
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
            length=128,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_mdlm.sh:25
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
            alpha_end=None,  # s-sahoo/duo@7c9b498 configs/algo/mdlm.yaml:4: time_conditioning False, sigma = 0
            rope_base=10_000.0,  # s-sahoo/duo@7c9b498 models/dit.py:82: rotary base
            norm_eps=1e-5,  # s-sahoo/duo@7c9b498 models/dit.py:159: torch's default
        ),
        rate=0.1,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:9: dropout
    ),
    process=Absorbing(),  # docs/method.md#mdlm
    objective=Elbo(
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
    micro_batch=64,  # s-sahoo/duo@7c9b498 scripts/train_lm1b_mdlm.sh:19: loader.batch_size
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
