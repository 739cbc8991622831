"""The autoregressive baseline of the recipes llada and duo: a causal Llama of ModernBERT-large's size.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.ar
Toy      python -m repro.recipes.ar --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number; this model is trained from random weights, the diffusion models start from the pre-trained
         ModernBERT-large
Source   ours: the reference scripts, tom-pollak/dllm@43ea9ff, have no baseline; data and optimizer are those of
         their train_dllm.py
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
    name="ar",  # ours: its name in repro/core/registry.py
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
    backbone=Llama(
        layers=28,  # ours: as ModernBERT-large
        width=1024,  # ours: as ModernBERT-large
        heads=16,  # ours: as ModernBERT-large
        kv_heads=16,  # ours: no grouped queries
        ffn=2640,  # ours: 396.2 M parameters against ModernBERT-large's 395.9 M
        attention="causal",  # docs/method.md#ar-baseline
        rope_base=10_000.0,  # transformers 4.53.1 models/llama/configuration_llama.py:179
        norm_eps=1e-5,  # ours: as Llama's code (meta-llama/llama llama/model.py:27)
        learned_positions=0,  # ours: as Llama, RoPE alone
        tied=True,  # ours: as ModernBERT-large
        init_deviation=0.02,  # transformers 4.53.1 models/llama/configuration_llama.py:171
    ),
    process=LeftToRight(),  # docs/method.md#ar-baseline
    objective=NextToken(
        group=GlobalBatch(),  # ours: the mean over all scored tokens of the step
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
