"""Distilled Duo on OpenWebText: discrete consistency distillation (DCD) from Duo's released weights, with
five doublings of its time step.

Run      accelerate launch --config_file recipes/launch/gpu_1.yaml -m repro.recipes.duo_owt_distilled
Toy      python -m repro.recipes.duo_owt_distilled --scale nano         one core, no download; trains its teacher first
Cost     1 x H100, 5.2 hours (--plan --gpus 1: arithmetic at 40 % of the peak, not measured)
Expect   perplexity (bound) 30.27, measured by a user (issue 12 of s-sahoo/duo); generative perplexity under GPT-2
         large 61.31 at 32 steps and 111.88 at 8, against 96.19 and 198.27 before distillation (arXiv 2506.10892,
         tables 5 to 7)
Source   s-sahoo/duo@7c9b498 scripts/distil_owt.sh, algo.py:639-758
Departs  the teacher has no dropout (the original never calls eval() on it, so its dropout of .1 stays on); the
         stratified diffusion times of a step share one random shift; a token's trajectory is drawn by way of the
         three random numbers that determine it, with the same distribution; student and teacher start from the
         averaged weights on the Hub (the original: the raw weights of duo.ckpt), and the average starts there at decay
         .999 (the original continues Duo's average and its decay, .9999, which on_load_checkpoint restores); the BOS
         and EOS of a row are neither noised nor scored (the original: both)
"""

from repro.core.schedules import ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import Packed
from repro.data.pretrained import Pretrained
from repro.models.dit import Dit, WithDropout
from repro.objectives.dcd import Dcd
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import GlobalBatch
from repro.processes.uniform import Uniform
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe, ReleasedTeacher

RECIPE = Recipe(
    name="duo_owt_distilled",  # ours: its name in repro/core/registry.py
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
                size=50_258,  # s-sahoo/duo@7c9b498 dataloader.py:749-750: 50,257 ids of gpt2 and [PAD]
                begin=50_256,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:159: its end of text is BOS too
                end=50_256,  # transformers 4.53.1 models/gpt2/configuration_gpt2.py:160
                pad=50_257,  # s-sahoo/duo@7c9b498 dataloader.py:749-750; no packed row holds it
                mask=50_257,  # ours: unused; an id of its own would be a row that the authors' network lacks
            ),
            length=1024,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:5: length
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
            alpha_end=1e-3,  # s-sahoo/duo@7c9b498 configs/algo/distillation.yaml:4: time_conditioning True
            rope_base=10_000.0,  # s-sahoo/duo@7c9b498 models/dit.py:82: rotary base
            norm_eps=1e-5,  # s-sahoo/duo@7c9b498 models/dit.py:159: torch's default
        ),
        rate=0.1,  # s-sahoo/duo@7c9b498 configs/model/small.yaml:9: dropout
    ),
    process=Uniform(
        alpha_end=1e-3,  # s-sahoo/duo@7c9b498 configs/noise/log-linear.yaml:2: alpha(t) = 1 - (1 - 1e-3) t
        eps=1e-3,  # s-sahoo/duo@7c9b498 configs/config.yaml:56: sampling_eps
    ),
    objective=Dcd(
        window=GammaWindow(
            low=-4.0,  # s-sahoo/duo@7c9b498 configs/algo/distillation.yaml:17: gamma_min
            high=-1.0,  # s-sahoo/duo@7c9b498 configs/algo/distillation.yaml:18: gamma_max
        ),
        grid=512,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:29: algo.T
        round=10_000,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:35: update_teacher_every
        eps=1e-3,  # s-sahoo/duo@7c9b498 configs/config.yaml:56: sampling_eps
        group=GlobalBatch(),  # s-sahoo/duo@7c9b498 trainer_base.py:432-434: divided by the token count
    ),
    optimizer=AdamW(
        lr=6e-5,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:36: optim.lr
        betas=(0.9, 0.999),  # s-sahoo/duo@7c9b498 configs/config.yaml:75-76
        eps=1e-8,  # s-sahoo/duo@7c9b498 configs/config.yaml:77
        weight_decay=0.0,  # s-sahoo/duo@7c9b498 configs/config.yaml:73
        clip=1.0,  # s-sahoo/duo@7c9b498 configs/config.yaml:85: gradient_clip_val
    ),
    learning_rate=ConstantWithWarmup(
        warmup=500,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:30: num_warmup_steps
    ),
    ema=Ema(
        decay=0.999,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:34: training.ema
    ),
    precision="bf16_autocast",  # s-sahoo/duo@7c9b498 configs/config.yaml:86: bf16, Lightning's autocast
    batch=128,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:33: global_batch_size
    micro_batch=2,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:20: loader.batch_size
    steps=50_000,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:32: max_steps; five rounds
    log_every=100,  # s-sahoo/duo@7c9b498 configs/config.yaml:89: log_every_n_steps
    heldout_every=1000,  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:31: val_check_interval
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # s-sahoo/duo@7c9b498 configs/callbacks/checkpoint_every_n_steps.yaml:8
    teacher=ReleasedTeacher(
        source="s-sahoo/duo",  # s-sahoo/duo@7c9b498 scripts/distil_owt.sh:16: duo.ckpt; here its copy on the Hub
        revision=UNRESOLVED,  # not pinned by the paper; resolved by the first online run
    ),
    suite="duo_owt_distilled",  # ours: evals/suites/duo_owt_distilled.toml
)

if __name__ == "__main__":
    main(RECIPE)
