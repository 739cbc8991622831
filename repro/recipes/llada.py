"""Masked diffusion as in tom-pollak/dllm's train_dllm.py ("LLaDA"): cross-entropy at 15-99 % masked answer tokens.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.llada
Toy      python -m repro.recipes.llada --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number; the training loss is not a likelihood bound (truncated mask rates, no 1/t weight)
Departs  from tom-pollak/dllm@43ea9ff train_dllm.py: float32 master weights instead of pure bf16 weights and Adam
         states; held-out rows are scored by the bound of the absorbing process, not by cross-entropy on fixed masks
"""

from repro.core.schedules import Cosine
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.models.modernbert import ModernBert
from repro.objectives.masked_ce import MaskedCE, Static
from repro.objectives.noise import Window
from repro.objectives.objective import RowGroup
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="llada",  # ours: its name in repro/core/registry.py
    data=Chat(
        source="allenai/tulu-3-sft-mixture-0225",  # tom-pollak/dllm@43ea9ff train_dllm.py:55
        revision=UNRESOLVED,  # not pinned by the reference scripts; resolved by the first online run
        split="train",  # tom-pollak/dllm@43ea9ff train_dllm.py:55
        source_rows=866_138,  # docs/method.md#masked-script: the expected count
        tokenizer="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_dllm.py:28
        tokenizer_revision=UNRESOLVED,  # not pinned by the reference scripts
        template="User: {user}\n{sep}\nAssistant:\n{assistant}",  # tom-pollak/dllm@43ea9ff train_dllm.py:31-32
        max_length=512,  # tom-pollak/dllm@43ea9ff train_dllm.py:37
        scored="answer",  # tom-pollak/dllm@43ea9ff train_dllm.py:39-42
        heldout_fraction=0.05,  # tom-pollak/dllm@43ea9ff train_dllm.py:58
        split_seed=42,  # tom-pollak/dllm@43ea9ff train_dllm.py:58
        size=50_368,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:136: vocab_size
        total=50_368,  # docs/method.md#masked-script: every id is a row of the embedding
        mask=50_284,  # docs/method.md#masked-script: [MASK] (checked on loading)
        pad=50_283,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:147: pad_token_id
        cls=50_281,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:150: cls_token_id
        sep=50_282,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:151: sep_token_id
    ),
    backbone=ModernBert(
        layers=28,  # arXiv 2412.13663 table 4
        width=1024,  # arXiv 2412.13663 table 4
        heads=16,  # arXiv 2412.13663 table 4
        ffn=2624,  # arXiv 2412.13663 table 4: GeGLU, Wi 1024 -> 5248
        global_every=3,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:155
        window=128,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:156
        rope_base_global=160_000.0,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:152
        rope_base_local=10_000.0,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:157
        norm_eps=1e-5,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:145: norm_eps
        max_positions=8192,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:142
        attend_pads=True,  # tom-pollak/dllm@43ea9ff train_dllm.py:57 (docs/method.md#script-departures row 12)
        init_deviation=0.02,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:143
        weights="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_dllm.py:29
        revision=UNRESOLVED,  # not pinned by the reference scripts
    ),
    process=Absorbing(),  # docs/method.md#mdlm
    objective=MaskedCE(
        rate=Window(
            low=0.15,  # tom-pollak/dllm@43ea9ff train_dllm.py:44
            high=0.99,  # tom-pollak/dllm@43ea9ff train_dllm.py:44
        ),
        masks=Static(),  # tom-pollak/dllm@43ea9ff train_dllm.py:56-57: drawn once, inside datasets.map
        group=RowGroup(
            rows=32,  # docs/method.md#masked-script: the mean over one GPU's 32 rows
        ),
    ),
    optimizer=AdamW(
        lr=5e-5,  # transformers 4.53.1 training_args.py:902: train_dllm.py sets none
        betas=(0.9, 0.999),  # transformers 4.53.1 training_args.py:904-905
        eps=1e-8,  # transformers 4.53.1 training_args.py:906
        weight_decay=0.0,  # transformers 4.53.1 training_args.py:903
        clip=1.0,  # transformers 4.53.1 training_args.py:907: train_dllm.py sets none
    ),
    learning_rate=Cosine(
        warmup=0,  # transformers 4.53.1 training_args.py:926-929
    ),
    ema=None,  # ours: the reference scripts keep no average
    precision="bf16_master",  # ours: pure bf16 loses updates (docs/method.md#masked-script, consequence 3)
    batch=256,  # tom-pollak/dllm@43ea9ff train_dllm.py:65: 32 a GPU; README.md:31: 8 GPUs
    micro_batch=32,  # tom-pollak/dllm@43ea9ff train_dllm.py:65
    steps=3_215,  # docs/method.md#masked-script: one epoch, ceil(ceil(.95 * 866,138 / 32) / 8)
    log_every=500,  # transformers 4.53.1 training_args.py:964-965: train_dllm.py sets none
    heldout_every=200,  # tom-pollak/dllm@43ea9ff train_dllm.py:67
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # transformers 4.53.1 training_args.py:978-979
    teacher=None,  # ours: nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
