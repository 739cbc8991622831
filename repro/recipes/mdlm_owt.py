"""MDLM on OpenWebText: absorbing noise, the exact NELBO, a DiT of 12 layers without time conditioning.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.mdlm_owt
Toy      python -m repro.recipes.mdlm_owt --scale nano         one core, no download
Cost     8 x H100, 39 hours (--plan: arithmetic at 40 % of the peak, not measured)
Expect   MDLM 23.2 perplexity (bound) on the last 100,000 documents (arXiv 2506.10892, table 1);
         published numbers leave out the bound's prior and tail terms, as `--tasks PROTOCOL.truncated` does here
Source   s-sahoo/duo@7c9b498 scripts/train_owt_mdlm.sh
Departs  the stratified diffusion times of a step share one random shift (the original: one per row);
         the BOS and EOS of a row are neither noised nor scored (the original: both)
"""

from repro.core.schedules import ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import Packed
from repro.data.pretrained import Pretrained
from repro.models.dit import Dit, WithDropout
from repro.objectives.elbo import Elbo
from repro.objectives.objective import GlobalBatch
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="mdlm_owt",  # ours: its name in repro/core/registry.py
    data=Counted(
        data=Packed(
            documents=Hub(
                source="Skylion007/openwebtext",  # s-sahoo/duo@7c9b498 dataloader.py:550-565, by its older name
                config=None,  # ours: openwebtext has one configuration
                revision=UNRESOLVED,  # not pinned by the papers; resolved by the first online run
                split="train[:-100000]",  # s-sahoo/duo@7c9b498 dataloader.py:550-557
                heldout_split="train[-100000:]",  # s-sahoo/duo@7c9b498 dataloader.py:558-565
                column="text",  # s-sahoo/duo@7c9b498 dataloader.py:638
            ),
            units=Pretrained(
                source="gpt2",  # s-sahoo/duo@7c9b498 configs/data/openwebtext-split.yaml:4
                revision=UNRESOLVED,  # not pinned by the papers
                size=50_257,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:140; the mask is a further id
                begin=50_256,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:159: its end of text is BOS too
                end=50_256,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:160
                pad=None,  # ours: packed rows have no padding
                mask=None,  # kuleshov-group/mdlm@c112c52 diffusion.py:85-88: gpt2 has none, so it is the next id
            ),
            length=1024,  # s-sahoo/duo@7c9b498 scripts/train_owt_mdlm.sh:25
            batch=1000,  # docs/method.md#packing: the default of datasets.map
        ),
        rows=8_700_000,  # ours: expected, 9.0e9 ids of 8.0 M documents (nanoGPT's count) / 1,022 a row
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
    micro_batch=32,  # ours: s-sahoo/duo@7c9b498 scripts/train_owt_mdlm.sh:19 has 2; the step is the same
    steps=1_000_000,  # s-sahoo/duo@7c9b498 configs/config.yaml:88: max_steps
    log_every=100,  # s-sahoo/duo@7c9b498 configs/config.yaml:89: log_every_n_steps
    heldout_every=5000,  # s-sahoo/duo@7c9b498 configs/config.yaml:92: val_check_interval
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # s-sahoo/duo@7c9b498 configs/callbacks/checkpoint_every_n_steps.yaml:8
    teacher=None,  # ours: nothing is distilled
    suite="mdlm_owt",  # ours: evals/suites/mdlm_owt.toml
)

if __name__ == "__main__":
    main(RECIPE)
