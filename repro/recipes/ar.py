"""The autoregressive baseline: a causal Llama of ModernBERT-large's size on the seed document's data.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.ar
Toy      python -m repro.recipes.ar --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number; the network starts from scratch, ModernBERT-large from its pre-training
Source   ours: the seed has no baseline; data and optimizer are its masked script's
"""

from repro.core.schedules import Cosine
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.models.llama import Llama
from repro.objectives.next_token import NextToken
from repro.objectives.objective import GlobalBatch
from repro.processes.left_to_right import LeftToRight
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="ar",  # repro/registry.py
    data=Chat(
        source="allenai/tulu-3-sft-mixture-0225",  # tom-pollak/dllm@43ea9ff train_dllm.py:31-32
        revision=UNRESOLVED,  # the seed pins none; resolved by the first online run
        split="train",  # tom-pollak/dllm@43ea9ff train_dllm.py:31-32
        source_rows=866_138,  # expected for -0225 (docs/method.md#masked-script)
        tokenizer="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_dllm.py:27-29
        tokenizer_revision=UNRESOLVED,  # the seed pins none
        template="User: {user}\n{sep}\nAssistant:\n{assistant}",  # tom-pollak/dllm@43ea9ff train_dllm.py:31-32
        max_length=512,  # tom-pollak/dllm@43ea9ff train_dllm.py:36-37
        scored="answer",  # tom-pollak/dllm@43ea9ff train_dllm.py:41-42
        heldout_fraction=0.05,  # tom-pollak/dllm@43ea9ff train_dllm.py:58
        split_seed=42,  # tom-pollak/dllm@43ea9ff train_dllm.py:58
        size=50_368,  # ModernBERT config.json: vocab_size (docs/method.md#masked-script)
        total=50_368,  # same: every id is a row of the embedding
        mask=50_284,  # ModernBERT tokenizer: [MASK] (checked on loading)
        pad=50_283,  # ModernBERT config.json: pad_token_id
        cls=50_281,  # ModernBERT config.json: cls_token_id
        sep=50_282,  # ModernBERT config.json: sep_token_id
    ),
    backbone=Llama(
        layers=28,  # ours: as many as ModernBERT-large
        width=1024,  # ours: as wide as ModernBERT-large
        heads=16,  # ours: as ModernBERT-large
        kv_heads=16,  # ours: no grouped queries
        ffn=2640,  # ours: 396.2 M parameters against ModernBERT-large's 395.9 M
        attention="causal",  # docs/method.md#ar-baseline
        rope_base=10_000.0,  # Llama (arXiv 2302.13971)
        norm_eps=1e-5,  # Llama (arXiv 2302.13971)
        learned_positions=0,  # Llama has none
        tied=True,  # ours: as ModernBERT-large
        init_deviation=0.02,  # transformers LlamaConfig: initializer_range
    ),
    process=LeftToRight(),  # docs/method.md#ar-baseline
    objective=NextToken(
        group=GlobalBatch(),  # ours
    ),
    optimizer=AdamW(
        lr=5e-5,  # tom-pollak/dllm@43ea9ff train_dllm.py:63-69
        betas=(0.9, 0.999),  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        eps=1e-8,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        weight_decay=0.0,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        clip=1.0,  # tom-pollak/dllm@43ea9ff train_dllm.py:63-69 (Trainer default)
    ),
    learning_rate=Cosine(
        warmup=0,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
    ),
    ema=None,  # the seed keeps no average
    precision="bf16_master",  # ours: pure bf16 loses steps (docs/method.md#masked-script, consequence 3)
    batch=256,  # tom-pollak/dllm@43ea9ff README.md:31 and train_dllm.py: 32 a GPU on 8 GPUs
    micro_batch=32,  # tom-pollak/dllm@43ea9ff train_dllm.py:65
    steps=3_215,  # one epoch: ceil(ceil(.95 * 866,138 / 32) / 8) (docs/method.md#masked-script)
    log_every=500,  # tom-pollak/dllm@43ea9ff train_dllm.py:67 (Trainer default)
    heldout_every=200,  # tom-pollak/dllm@43ea9ff train_dllm.py:67
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
    teacher=None,  # nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
