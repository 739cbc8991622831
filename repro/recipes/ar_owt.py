"""The left-to-right baseline of MDLM and Duo on OpenWebText: the same DiT, causal and without noise levels.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.ar_owt
Toy      python -m repro.recipes.ar_owt --scale nano         one core, no download
Cost     8 x H100, 37 hours (--plan: arithmetic at 40 % of the peak, not measured)
Expect   AR 17.5 perplexity on the last 100,000 documents (arXiv 2506.10892, table 1; 17.54 in arXiv 2406.07524)
Source   s-sahoo/duo at 7c9b498, configs/config.yaml with algo=ar; the same repository trains all three families
Departs  the network reads two BOS, its own and the one that a row begins with (theirs reads the row's alone); the EOS
         that a row is forced to end in is not scored (theirs: it is)
"""

from repro.core.schedules import ConstantWithWarmup
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import Packed
from repro.data.pretrained import Pretrained
from repro.models.dit import DitCausal, WithDropout
from repro.objectives.next_token import NextToken
from repro.objectives.objective import GlobalBatch
from repro.processes.left_to_right import LeftToRight
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="ar_owt",  # repro/registry.py
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
                size=50_257,  # gpt2; one row comes behind, and no softmax holds it
                begin=50_256,  # gpt2: its end of text stands for BOS as well
                end=50_256,  # gpt2: <|endoftext|>
                pad=None,  # wrapped rows have none
                mask=None,  # gpt2 has none
            ),
            length=1024,  # s-sahoo/duo scripts: model.length=1024 (docs/method.md#duo-hyperparameters)
            batch=1000,  # datasets.map: its batch size, not set in dataloader.py:695-710 (docs/method.md#packing)
        ),
        rows=8_700_000,  # ours, expected: 9.0e9 ids of 8.0 M documents (nanoGPT's count), / 1,022 a row
    ),
    backbone=WithDropout(
        backbone=DitCausal(
            layers=12,  # s-sahoo/duo configs/model/small.yaml: n_blocks
            width=768,  # s-sahoo/duo configs/model/small.yaml: hidden_size
            heads=12,  # s-sahoo/duo configs/model/small.yaml: n_heads
            ffn=3072,  # s-sahoo/duo models/dit.py: mlp_ratio 4 (docs/method.md#duo-hyperparameters)
            rope_base=10_000.0,  # s-sahoo/duo models/dit.py: rotary base (docs/method.md#duo-hyperparameters)
            norm_eps=1e-5,  # torch: layer_norm's default
        ),
        rate=0.1,  # s-sahoo/duo configs/model/small.yaml: dropout
    ),
    process=LeftToRight(),  # s-sahoo/duo configs/algo/ar.yaml
    objective=NextToken(
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
    micro_batch=32,  # ours, as duo_owt; it moves no number
    steps=1_000_000,  # s-sahoo/duo configs/config.yaml: trainer.max_steps
    log_every=100,  # s-sahoo/duo configs/config.yaml: log_every_n_steps
    heldout_every=5000,  # s-sahoo/duo configs/config.yaml: val_check_interval
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # s-sahoo/duo configs/callbacks/checkpoint_every_n_steps.yaml
    teacher=None,  # nothing is distilled
    suite="ar_owt",  # ours: evals/suites/ar_owt.toml
)

if __name__ == "__main__":
    main(RECIPE)
