"""Duo on the seed document's terms: uniform noise relaxed by a Gaussian, symmetric KL, view scaling.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.duo
Toy      python -m repro.recipes.duo --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number; P(flip) averages .935, so context is scarce (docs/method.md#flip-probability)
Departs  from tom-pollak/dllm@43ea9ff train_flowlm.py: the reverse term in closed form; 500,000 steps, the length of
its annealing (about
         156 epochs at 256 sequences a step) instead of one epoch; clip 1.0
"""

from repro.core.schedules import Linear, LinearToZero
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.models.modernbert import ModernBert
from repro.objectives.noise import Window
from repro.objectives.objective import RowGroup
from repro.objectives.soft_tokens import Sparse
from repro.objectives.sym_kl import Kappa, SymKL
from repro.processes.uniform import Uniform
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="duo",  # repro/registry.py
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
    objective=SymKL(
        noise=Window(
            low=0.03,  # tom-pollak/dllm@43ea9ff train_flowlm.py:55
            high=0.15,  # tom-pollak/dllm@43ea9ff train_flowlm.py:55
        ),
        temperature=LinearToZero(
            start=1e-3,  # tom-pollak/dllm@43ea9ff train_flowlm.py:60-61
            steps=500_000,  # tom-pollak/dllm@43ea9ff train_flowlm.py:60-61 and README.md:234
            floor=1e-8,  # tom-pollak/dllm@43ea9ff train_flowlm.py:60-61
        ),
        tokens=Sparse(
            mass=0.9999,  # ours: same law as dense (tested)
        ),
        floor=1e-8,  # tom-pollak/dllm@43ea9ff train_flowlm.py:75-77 (docs/method.md#symmetric-kl)
        view_scale=Kappa(),  # tom-pollak/dllm@43ea9ff train_flowlm.py:80 (docs/method.md#script-departures row 1)
        group=RowGroup(
            rows=32,  # tom-pollak/dllm@43ea9ff train_flowlm.py:83: mean over one GPU's tokens, then over GPUs
        ),
    ),
    optimizer=AdamW(
        lr=5e-5,  # tom-pollak/dllm@43ea9ff train_flowlm.py:89-93
        betas=(0.9, 0.999),  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        eps=1e-8,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        weight_decay=0.0,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
        clip=1.0,  # ours: the script clips nothing (docs/method.md#uniform-script)
    ),
    learning_rate=Linear(
        warmup=0,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
    ),
    ema=None,  # the seed keeps no average
    precision="bf16_master",  # tom-pollak/dllm@43ea9ff train_flowlm.py:94-107: DeepSpeed bf16, float32 masters
    batch=256,  # tom-pollak/dllm@43ea9ff README.md:31 and train_flowlm.py: 32 a GPU on 8 GPUs
    micro_batch=32,  # tom-pollak/dllm@43ea9ff train_flowlm.py:89-93
    steps=500_000,  # tom-pollak/dllm@43ea9ff README.md:234: annealed over 500K steps
    log_every=500,  # transformers 4.53 TrainingArguments
    heldout_every=5000,  # ours: the script never evaluates (docs/method.md#uniform-script)
    heldout_rows=4096,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=500,  # transformers 4.53 TrainingArguments (docs/method.md#masked-script)
    teacher=None,  # nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
