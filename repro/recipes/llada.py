"""The seed document's masked diffusion (its "LLaDA" script): cross-entropy at 15-99 % masked answer tokens.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.llada
Toy      python -m repro.recipes.llada --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number; the score is no bound (rates are truncated, no 1/t weight)
Departs  from tom-pollak/dllm@43ea9ff train_dllm.py: float32 masters instead of pure bf16 weights and Adam states; the
held-out score is
         the bound of the absorbing process, not the masked cross-entropy on static masks
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
    name="llada",  # repro/registry.py
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
        attend_pads=True,  # no attention mask in train_dllm.py:57 (docs/method.md#script-departures row 12)
        init_deviation=0.02,  # ModernBERT config.json: initializer_range; unused, weights are loaded
        weights="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_dllm.py:27-29
        revision=UNRESOLVED,  # the seed pins none
    ),
    process=Absorbing(),  # docs/method.md#mdlm
    objective=MaskedCE(
        rate=Window(
            low=0.15,  # tom-pollak/dllm@43ea9ff train_dllm.py:44
            high=0.99,  # tom-pollak/dllm@43ea9ff train_dllm.py:44
        ),
        masks=Static(),  # tom-pollak/dllm@43ea9ff train_dllm.py:56-57: drawn once, inside datasets.map
        group=RowGroup(
            rows=32,  # tom-pollak/dllm@43ea9ff train_dllm.py:65, mean over a GPU (docs/method.md#masked-script)
        ),
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
