"""Duo's paper loss on the seed document's data: a relaxed curriculum, then the discrete NELBO.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.duo_nelbo
Toy      python -m repro.recipes.duo_nelbo --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number on this data; LM1B and OWT have their own recipes
Departs  from the paper (arXiv 2506.10892): ModernBERT without time conditioning, the seed's optimizer and length; the
         curriculum covers the same half of the run
"""

from repro.core.schedules import Constant, Linear
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.models.modernbert import ModernBert
from repro.objectives.elbo import DuoElbo
from repro.objectives.noise import GammaWindow
from repro.objectives.objective import GlobalBatch
from repro.objectives.soft_tokens import Sparse
from repro.processes.uniform import Uniform
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="duo_nelbo",  # repro/registry.py
    data=Chat(
        source="allenai/tulu-3-sft-mixture-0225",  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        revision=UNRESOLVED,  # the seed pins none; resolved by the first online run
        split="train",  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        source_rows=866_138,  # expected for -0225 (docs/method.md#masked-script)
        tokenizer="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        tokenizer_revision=UNRESOLVED,  # the seed pins none
        template="User: {user}\n{sep}\nAssistant:\n{assistant}",  # tom-pollak/dllm@43ea9ff train_flowlm.py:24-26
        max_length=512,  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        scored="all",  # tom-pollak/dllm@43ea9ff train_flowlm.py:67
        heldout_fraction=0.05,  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        split_seed=42,  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        size=50_368,  # ModernBERT config.json: vocab_size (docs/method.md#masked-script)
        total=50_368,  # same: every id is a row of the embedding
        mask=50_284,  # ModernBERT tokenizer: [MASK] (checked on loading)
        pad=50_283,  # ModernBERT config.json: pad_token_id
        cls=50_281,  # ModernBERT config.json: cls_token_id
        sep=50_282,  # ModernBERT config.json: sep_token_id
    ),
    backbone=ModernBert(
        layers=28,  # ModernBERT paper Table 4 (arXiv 2412.13663)
        width=1024,  # ModernBERT paper Table 4
        heads=16,  # ModernBERT paper Table 4
        ffn=2624,  # ModernBERT paper Table 4: GeGLU, Wi 1024 -> 5248
        global_every=3,  # ModernBERT paper section 2.1.1
        window=128,  # ModernBERT paper section 2.1.1
        rope_base_global=160_000.0,  # ModernBERT paper section 2.1.1
        rope_base_local=10_000.0,  # ModernBERT paper section 2.1.1
        norm_eps=1e-5,  # ModernBERT config.json: norm_eps
        max_positions=8192,  # ModernBERT config.json: max_position_embeddings
        attend_pads=False,  # tom-pollak/dllm@43ea9ff train_flowlm.py:67 (docs/method.md#script-departures row 12)
        init_deviation=0.02,  # ModernBERT config.json: initializer_range; unused, weights are loaded
        weights="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-43
        revision=UNRESOLVED,  # the seed pins none
    ),
    process=Uniform(
        alpha_end=1e-3,  # docs/method.md#duo-curriculum: alpha(t) = 1 - (1 - 1e-3) t
        eps=1e-3,  # docs/method.md#duo-curriculum: t in [1e-3, 1]
    ),
    objective=DuoElbo(
        window=GammaWindow(
            low=-3.55,  # Duo scripts/train_owt_duo.sh (docs/method.md#duo-curriculum: OWT, the larger vocabulary)
            high=-1.85,  # Duo scripts/train_owt_duo.sh (docs/method.md#duo-curriculum)
        ),
        temperature=Constant(
            value=1e-3,  # Duo scripts: log10 start = end = -3 (docs/method.md#duo-curriculum)
        ),
        tokens=Sparse(
            mass=0.9999,  # ours: same law as dense (tested)
        ),
        until=1_607,  # Duo scripts: the first half of the run (500 K of 1 M steps; docs/method.md#duo-curriculum)
        eps=1e-3,  # Duo: t in [1e-3, 1] (docs/method.md#duo-curriculum)
        group=GlobalBatch(),  # Duo trainer_base.py:419-439: divided by the token count (docs/method.md#duo-nelbo)
    ),
    optimizer=AdamW(
        lr=5e-5,  # tom-pollak/dllm@43ea9ff train_flowlm.py:89-93
        betas=(0.9, 0.999),  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        eps=1e-8,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        weight_decay=0.0,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        clip=1.0,  # Duo configs: gradient_clip_val 1.0 (docs/method.md#duo-hyperparameters)
    ),
    learning_rate=Linear(
        warmup=0,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
    ),
    ema=Ema(
        decay=0.9999,  # Duo configs (docs/method.md#duo-hyperparameters)
    ),  # Duo models/ema.py:41-44 (docs/method.md#duo-hyperparameters)
    precision="bf16_master",  # tom-pollak/dllm@43ea9ff train_flowlm.py:94-107
    batch=256,  # tom-pollak/dllm@43ea9ff README.md:31 and train_flowlm.py: 32 a GPU on 8 GPUs
    micro_batch=32,  # tom-pollak/dllm@43ea9ff train_flowlm.py:89-93
    steps=3_215,  # one epoch: ceil(ceil(.95 * 866,138 / 32) / 8) (docs/method.md#masked-script)
    log_every=500,  # transformers 4.53 TrainingArguments
    heldout_every=200,  # ours
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
    teacher=None,  # nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
