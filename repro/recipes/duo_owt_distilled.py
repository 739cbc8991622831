"""Duo on OpenWebText, distilled: discrete consistency distillation (DCD) from Duo's own weights, five doublings.

Run      accelerate launch --config_file recipes/launch/gpu_1.yaml -m repro.recipes.duo_owt_distilled
Toy      python -m repro.recipes.duo_owt_distilled --scale nano         one core, no download; trains its teacher first
Cost     1 x H100, 5.2 hours (--plan --gpus 1: arithmetic at 40 % of the peak, not measured)
Expect   perplexity (bound) 30.27, measured by a user (issue 12 of s-sahoo/duo); judged by GPT-2 large, 61.31 in 32
         steps and 111.88 in 8, against 96.19 and 198.27 before (arXiv 2506.10892, tables 5 to 7)
Source   s-sahoo/duo at 7c9b498, scripts/distil_owt.sh, algo.py:648-751
Departs  the teacher drops nothing (theirs is never put into evaluation mode, so its dropout of .1 stays on); one common
         shift of the stratified times of a step; the path is drawn by its three numbers a token, of the same law;
         student and teacher begin with the average that the Hub's copy is (theirs with the raw weights of duo.ckpt),
         and the average begins there, at decay .999 (theirs goes on with Duo's own and its decay, .9999, as its
         on_load_checkpoint restores them); BOS and EOS around a row are neither noised nor scored (theirs: both)
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
    name="duo_owt_distilled",  # repro/registry.py
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
            length=1024,  # s-sahoo/duo configs/model/small.yaml: length
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
            alpha_end=1e-3,  # s-sahoo/duo configs/algo/distillation.yaml: time_conditioning True; sigma = -log alpha
            rope_base=10_000.0,  # s-sahoo/duo models/dit.py: rotary base (docs/method.md#duo-hyperparameters)
            norm_eps=1e-5,  # torch: layer_norm's default
        ),
        rate=0.1,  # s-sahoo/duo configs/model/small.yaml: dropout
    ),
    process=Uniform(
        alpha_end=1e-3,  # s-sahoo/duo configs/noise/log-linear.yaml: alpha(t) = 1 - (1 - 1e-3) t
        eps=1e-3,  # s-sahoo/duo configs/config.yaml: sampling_eps
    ),
    objective=Dcd(
        window=GammaWindow(
            low=-4.0,  # s-sahoo/duo configs/algo/distillation.yaml: gamma_min
            high=-1.0,  # s-sahoo/duo configs/algo/distillation.yaml: gamma_max
        ),
        grid=512,  # s-sahoo/duo scripts/distil_owt.sh: algo.T
        round=10_000,  # s-sahoo/duo scripts/distil_owt.sh: update_teacher_every
        eps=1e-3,  # s-sahoo/duo configs/config.yaml: sampling_eps
        group=GlobalBatch(),  # s-sahoo/duo trainer_base.py:432-434: divided by the token count
    ),
    optimizer=AdamW(
        lr=6e-5,  # s-sahoo/duo scripts/distil_owt.sh: optim.lr
        betas=(0.9, 0.999),  # s-sahoo/duo configs/config.yaml: beta1, beta2
        eps=1e-8,  # s-sahoo/duo configs/config.yaml: optim.eps
        weight_decay=0.0,  # s-sahoo/duo configs/config.yaml: optim.weight_decay
        clip=1.0,  # s-sahoo/duo configs/config.yaml: gradient_clip_val
    ),
    learning_rate=ConstantWithWarmup(
        warmup=500,  # s-sahoo/duo scripts/distil_owt.sh: num_warmup_steps
    ),
    ema=Ema(
        decay=0.999,  # s-sahoo/duo scripts/distil_owt.sh: training.ema
    ),
    precision="bf16_autocast",  # s-sahoo/duo configs/config.yaml: trainer.precision bf16, Lightning's autocast
    batch=128,  # s-sahoo/duo scripts/distil_owt.sh: global_batch_size
    micro_batch=2,  # s-sahoo/duo scripts/distil_owt.sh: loader.batch_size
    steps=50_000,  # s-sahoo/duo scripts/distil_owt.sh: trainer.max_steps; five rounds
    log_every=100,  # s-sahoo/duo configs/config.yaml: log_every_n_steps
    heldout_every=1000,  # s-sahoo/duo scripts/distil_owt.sh: val_check_interval
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # s-sahoo/duo configs/callbacks/checkpoint_every_n_steps.yaml
    teacher=ReleasedTeacher(
        source="s-sahoo/duo",  # s-sahoo/duo scripts/distil_owt.sh: finetune_path is duo.ckpt; here its copy on the Hub
        revision=UNRESOLVED,  # the paper pins none; not seen here
    ),
    suite="duo_owt_distilled",  # ours: evals/suites/duo_owt_distilled.toml
)

if __name__ == "__main__":
    main(RECIPE)
