"""BD3-LM with blocks of 4 tokens on OpenWebText: block diffusion, fine-tuned from the authors' masked diffusion model.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.bd3_owt_4
Toy      python -m repro.recipes.bd3_owt_4 --scale nano         one core, no download; from random weights
Cost     8 x H100, 9.4 hours (--plan: arithmetic at 40 % of the peak, not measured); the authors took about 3 days
         on 8 x A100 (kuleshov-group/bd3lms issue 5)
Expect   perplexity (bound) 20.73 on the last 100,000 documents, generative perplexity 25.7 at 1,024 tokens
         (arXiv 2503.09573; docs/method.md#block-diffusion), both with ranges of mask rates that
         the authors search for during training
Source   kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh; README.md:71-72
Departs  the range of mask rates is fixed (the original searches it anew at each validation, every 10,000 steps, and
         begins with [.001, 1]); its values are those that the paper gives for LM1B; the stratified mask rates of a step
         share one random shift, and cover all blocks of the step (the original: those of one GPU); the first token of a
         row, which is never noised, is not counted in the loss (the original: counted as zero); the held-out documents
         are joined as in training (the original: with nothing between them)
"""

from repro.core.schedules import ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import PackedWhole
from repro.data.pretrained import Pretrained
from repro.hub.pretrained import PretrainedBackbone
from repro.models.dit import DitBlocks, WithDropout
from repro.objectives.blocks import BlockElbo
from repro.objectives.noise import Window
from repro.objectives.objective import GlobalBatch
from repro.processes.blocks import BlockAbsorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="bd3_owt_4",  # ours: its name in repro/core/registry.py
    data=Counted(
        data=PackedWhole(
            documents=Hub(
                source="Skylion007/openwebtext",  # kuleshov-group/bd3lms@1c3e8f4 dataloader.py:369, by its older name
                config=None,  # ours: openwebtext has one configuration
                revision=UNRESOLVED,  # not pinned by the paper; resolved by the first online run
                split="train[:-100000]",  # kuleshov-group/bd3lms@1c3e8f4 dataloader.py:370
                heldout_split="train[-100000:]",  # kuleshov-group/bd3lms@1c3e8f4 dataloader.py:378
                column="text",  # kuleshov-group/bd3lms@1c3e8f4 dataloader.py:446
            ),
            units=Pretrained(
                source="gpt2",  # kuleshov-group/bd3lms@1c3e8f4 configs/data/openwebtext-split.yaml:3
                revision=UNRESOLVED,  # not pinned by the paper
                size=50_257,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:140; the mask is a further id
                begin=50_256,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:159: its end of text is BOS too
                end=50_256,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:160
                pad=None,  # ours: packed rows have no padding
                mask=None,  # kuleshov-group/bd3lms@1c3e8f4 diffusion.py:54-57: gpt2 has none, so it is the next id
            ),
            length=1024,  # kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh:31
            batch=1000,  # docs/method.md#packing: the default of datasets.map
        ),
        rows=8_700_000,  # ours: expected, 9.0e9 ids of 8.0 M documents (nanoGPT's count) / 1,024 a row
    ),
    backbone=PretrainedBackbone(
        backbone=WithDropout(
            backbone=DitBlocks(
                layers=12,  # kuleshov-group/bd3lms@1c3e8f4 configs/model/small.yaml:6: n_blocks
                width=768,  # kuleshov-group/bd3lms@1c3e8f4 configs/model/small.yaml:3: hidden_size
                heads=12,  # kuleshov-group/bd3lms@1c3e8f4 configs/model/small.yaml:7: n_heads
                ffn=3072,  # kuleshov-group/bd3lms@1c3e8f4 models/dit.py:437: mlp_ratio 4
                condition=128,  # kuleshov-group/bd3lms@1c3e8f4 configs/model/small.yaml:4: cond_dim; models/dit.py:650
                frequencies=256,  # kuleshov-group/bd3lms@1c3e8f4 models/dit.py:240: sinusoids of the embedder
                block=4,  # kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh:16: BLOCK_SIZE
                rope_base=10_000.0,  # kuleshov-group/bd3lms@1c3e8f4 models/dit.py:140: rotary base
                norm_eps=1e-5,  # kuleshov-group/bd3lms@1c3e8f4 models/dit.py:219: torch's default
            ),
            rate=0.1,  # kuleshov-group/bd3lms@1c3e8f4 configs/model/small.yaml:9: dropout
        ),
        source="kuleshov-group/bd3lm-owt-block_size1024-pretrain",  # kuleshov-group/bd3lms@1c3e8f4 README.md:72
        revision=UNRESOLVED,  # not pinned by the paper
    ),
    process=BlockAbsorbing(
        block=4,  # kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh:32: block_size
    ),
    objective=BlockElbo(
        rate=Window(
            low=0.5,  # docs/method.md#published-f: the range of least variance for blocks of 4 (on LM1B)
            high=1.0,  # docs/method.md#published-f
        ),
        resample=True,  # kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh:36: training.resample
        group=GlobalBatch(),  # kuleshov-group/bd3lms@1c3e8f4 diffusion.py:888: divided by the token count
    ),
    optimizer=AdamW(
        lr=3e-4,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:57
        betas=(0.9, 0.999),  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:58-59
        eps=1e-8,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:60
        weight_decay=0.0,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:56
        clip=1.0,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:68: gradient_clip_val
    ),
    learning_rate=ConstantWithWarmup(
        warmup=2500,  # kuleshov-group/bd3lms@1c3e8f4 configs/lr_scheduler/constant_warmup.yaml:2
    ),
    ema=Ema(
        decay=0.9999,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:37; models/ema.py:41-44: its warm-up
    ),
    precision="bf16_autocast",  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:69: bf16, Lightning's autocast
    batch=512,  # kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh:20: global_batch_size
    micro_batch=16,  # kuleshov-group/bd3lms@1c3e8f4 scripts/train/train_owt_bd3lm.sh:22: batch_size
    steps=150_000,  # kuleshov-group/bd3lms@1c3e8f4 README.md:71-72: 1 M steps, of which 850 K are the pre-training's
    log_every=1000,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:72: log_every_n_steps
    heldout_every=10_000,  # kuleshov-group/bd3lms@1c3e8f4 configs/config.yaml:75: val_check_interval
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # kuleshov-group/bd3lms@1c3e8f4 configs/callbacks/checkpoint_every_n_steps.yaml:8
    teacher=None,  # ours: nothing is distilled
    suite="bd3_owt_4",  # ours: evals/suites/bd3_owt_4.toml
)

if __name__ == "__main__":
    main(RECIPE)
