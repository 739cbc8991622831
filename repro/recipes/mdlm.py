"""MDLM's exact bound (1/t weights) on the seed document's data.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.mdlm
Toy      python -m repro.recipes.mdlm --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number on this data
Departs  from the paper (arXiv 2406.07524): ModernBERT without time conditioning, the seed's optimizer and length, only
         answer tokens are noised
"""

from repro.backbones.modernbert import ModernBert
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.objectives.elbo import Elbo
from repro.objectives.objective import GlobalBatch
from repro.optim import AdamW, Ema
from repro.processes.absorbing import Absorbing
from repro.recipe import Recipe
from repro.recipes.command import main
from repro.schedules import Cosine

RECIPE = Recipe(
    name="mdlm",  # repro/registry.py
    data=Chat(
        source="allenai/tulu-3-sft-mixture-0225",  # seed train_dllm.py:31-32
        revision=UNRESOLVED,  # the seed pins none; resolved by the first online run
        split="train",  # seed train_dllm.py:31-32
        source_rows=866_138,  # expected for -0225 (spec A.1)
        tokenizer="answerdotai/ModernBERT-large",  # seed train_dllm.py:27-29
        tokenizer_revision=UNRESOLVED,  # the seed pins none
        template="User: {user}\n{sep}\nAssistant:\n{assistant}",  # seed train_dllm.py:31-32
        max_length=512,  # seed train_dllm.py:36-37
        scored="answer",  # seed train_dllm.py:41-42
        heldout_fraction=0.05,  # seed train_dllm.py:58
        split_seed=42,  # seed train_dllm.py:58
        size=50_368,  # ModernBERT config.json: vocab_size (spec A.1)
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
        attend_pads=False,  # seed train_dllm.py: ours, not the script's True (spec A.5 row 12)
        init_deviation=0.02,  # ModernBERT config.json: initializer_range; unused, weights are loaded
        weights="answerdotai/ModernBERT-large",  # seed train_dllm.py:27-29
        revision=UNRESOLVED,  # the seed pins none
    ),
    process=Absorbing(),  # spec C
    objective=Elbo(
        eps=1e-3,  # mdlm diffusion.py:800-808 (spec C)
        group=GlobalBatch(),  # mdlm: divided by the token count (spec C)
    ),
    optimizer=AdamW(
        lr=5e-5,  # seed train_dllm.py:63-69
        betas=(0.9, 0.999),  # transformers 4.53 TrainingArguments (spec A.1)
        eps=1e-8,  # transformers 4.53 TrainingArguments (spec A.1)
        weight_decay=0.0,  # transformers 4.53 TrainingArguments (spec A.1)
        clip=1.0,  # seed train_dllm.py:63-69 (Trainer default)
    ),
    learning_rate=Cosine(
        warmup=0,  # transformers 4.53 TrainingArguments (spec A.1)
    ),
    ema=Ema(
        decay=0.9999,  # mdlm configs (spec C)
    ),  # mdlm configs (spec C)
    precision="bf16_master",  # ours: float32 masters; the script's pure bf16 loses steps (spec A.1, consequence 3)
    batch=256,  # seed README.md:31 and train_dllm.py: 32 a GPU on 8 GPUs
    micro_batch=32,  # seed train_dllm.py:65
    steps=3_215,  # one epoch: ceil(ceil(.95 * 866,138 / 32) / 8) (spec A.1)
    log_every=500,  # seed train_dllm.py:67 (Trainer default)
    heldout_every=200,  # seed train_dllm.py:67
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # transformers 4.53 TrainingArguments (spec A.1)
    teacher=None,  # nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
