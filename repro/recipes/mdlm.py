"""MDLM, trained on its exact NELBO (1/t weights) on the data of tom-pollak/dllm's scripts.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.mdlm
Toy      python -m repro.recipes.mdlm --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number on this data
Departs  from the paper (arXiv 2406.07524): ModernBERT without time conditioning; optimizer and number of steps
         of tom-pollak/dllm@43ea9ff; only answer tokens are noised
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
    name="mdlm",  # ours: its name in repro/core/registry.py
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
        attend_pads=False,  # ours: padding is not attended (docs/method.md#script-departures row 12)
        init_deviation=0.02,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:143
        weights="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_dllm.py:29
        revision=UNRESOLVED,  # not pinned by the reference scripts
    ),
    process=Absorbing(),  # docs/method.md#mdlm
    objective=Elbo(
        eps=1e-3,  # kuleshov-group/mdlm@c112c52 diffusion.py:800-808
        group=GlobalBatch(),  # kuleshov-group/mdlm@c112c52 diffusion.py:908-912: divided by the token count
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
    ema=Ema(
        decay=0.9999,  # kuleshov-group/mdlm@c112c52 configs/config.yaml:41
    ),
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
