"""MDLM's exact bound (1/t weights) on the seed document's data.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.mdlm
Toy      python -m repro.recipes.mdlm --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number on this data
Departs  from the paper (arXiv 2406.07524): ModernBERT without time conditioning, the seed's optimizer and length, only
         answer tokens are noised
"""

from repro.core.schedules import Cosine
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.models.modernbert import ModernBert
from repro.objectives.elbo import Elbo
from repro.objectives.objective import GlobalBatch
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW, Ema
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="mdlm",  # repro/registry.py
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
        attend_pads=False,  # ours, not the script's True (docs/method.md#script-departures row 12)
        init_deviation=0.02,  # ModernBERT config.json: initializer_range; unused, weights are loaded
        weights="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_dllm.py:27-29
        revision=UNRESOLVED,  # the seed pins none
    ),
    process=Absorbing(),  # docs/method.md#mdlm
    objective=Elbo(
        eps=1e-3,  # mdlm diffusion.py:800-808 (docs/method.md#mdlm)
        group=GlobalBatch(),  # mdlm: divided by the token count (docs/method.md#mdlm)
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
    ema=Ema(
        decay=0.9999,  # mdlm configs (docs/method.md#mdlm)
    ),  # mdlm configs (docs/method.md#mdlm)
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
