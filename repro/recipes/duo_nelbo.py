"""The loss of Duo's paper on the data of tom-pollak/dllm's scripts: a curriculum with soft tokens, then the discrete
NELBO.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.duo_nelbo
Toy      python -m repro.recipes.duo_nelbo --scale nano         half a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number on this data; for LM1B and OpenWebText see duo_lm1b and duo_owt
Departs  from the paper (arXiv 2506.10892): ModernBERT without time conditioning; optimizer and number of steps
         of tom-pollak/dllm@43ea9ff; the curriculum covers the first half of the run, as in the paper
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
    name="duo_nelbo",  # ours: its name in repro/core/registry.py
    data=Chat(
        source="allenai/tulu-3-sft-mixture-0225",  # tom-pollak/dllm@43ea9ff train_flowlm.py:40
        revision=UNRESOLVED,  # not pinned by the reference scripts; resolved by the first online run
        split="train",  # tom-pollak/dllm@43ea9ff train_flowlm.py:40
        source_rows=866_138,  # docs/method.md#masked-script: the expected count
        tokenizer="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-19
        tokenizer_revision=UNRESOLVED,  # not pinned by the reference scripts
        template="User: {user}\n{sep}\nAssistant:\n{assistant}",  # tom-pollak/dllm@43ea9ff train_flowlm.py:24-26
        max_length=512,  # tom-pollak/dllm@43ea9ff train_flowlm.py:33
        scored="all",  # tom-pollak/dllm@43ea9ff train_flowlm.py:82: every token but padding
        heldout_fraction=0.05,  # tom-pollak/dllm@43ea9ff train_flowlm.py:43
        split_seed=42,  # tom-pollak/dllm@43ea9ff train_flowlm.py:43
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
        attend_pads=False,  # tom-pollak/dllm@43ea9ff train_flowlm.py:67
        init_deviation=0.02,  # transformers 4.53.1 models/modernbert/configuration_modernbert.py:143
        weights="answerdotai/ModernBERT-large",  # tom-pollak/dllm@43ea9ff train_flowlm.py:18-20
        revision=UNRESOLVED,  # not pinned by the reference scripts
    ),
    process=Uniform(
        alpha_end=1e-3,  # docs/method.md#duo-curriculum: alpha(t) = 1 - (1 - 1e-3) t
        eps=1e-3,  # docs/method.md#duo-curriculum: t in [1e-3, 1]
    ),
    objective=DuoElbo(
        window=GammaWindow(
            low=-3.55,  # s-sahoo/duo@7c9b498 scripts/train_owt_duo.sh:30: OWT has the larger vocabulary
            high=-1.85,  # s-sahoo/duo@7c9b498 scripts/train_owt_duo.sh:31
        ),
        temperature=Constant(
            value=1e-3,  # s-sahoo/duo@7c9b498 scripts/train_owt_duo.sh:28-29: log10 start = end = -3
        ),
        tokens=Sparse(
            mass=0.9999,  # ours: same law as dense soft tokens (tested)
        ),
        until=1_607,  # ours: half of the run, as s-sahoo/duo@7c9b498 scripts/train_owt_duo.sh:33
        eps=1e-3,  # docs/method.md#duo-curriculum: t in [1e-3, 1]
        group=GlobalBatch(),  # s-sahoo/duo@7c9b498 trainer_base.py:432-434: divided by the token count
    ),
    optimizer=AdamW(
        lr=5e-5,  # transformers 4.53.1 training_args.py:902: train_flowlm.py sets none
        betas=(0.9, 0.999),  # transformers 4.53.1 training_args.py:904-905
        eps=1e-8,  # transformers 4.53.1 training_args.py:906
        weight_decay=0.0,  # transformers 4.53.1 training_args.py:903
        clip=1.0,  # s-sahoo/duo@7c9b498 configs/config.yaml:85: gradient_clip_val
    ),
    learning_rate=Linear(
        warmup=0,  # transformers 4.53.1 training_args.py:926-929
    ),
    ema=Ema(
        decay=0.9999,  # s-sahoo/duo@7c9b498 configs/config.yaml:53; models/ema.py:41-44: the warm-up of the decay
    ),
    precision="bf16_master",  # tom-pollak/dllm@43ea9ff train_flowlm.py:94-107: DeepSpeed bf16, float32 master weights
    batch=256,  # tom-pollak/dllm@43ea9ff train_flowlm.py:91: 32 a GPU; README.md:31: 8 GPUs
    micro_batch=32,  # tom-pollak/dllm@43ea9ff train_flowlm.py:91
    steps=3_215,  # docs/method.md#masked-script: one epoch, ceil(ceil(.95 * 866,138 / 32) / 8)
    log_every=500,  # ours: the script logs every 20 steps (tom-pollak/dllm@43ea9ff train_flowlm.py:92)
    heldout_every=200,  # ours: as train_dllm.py:67 of the reference scripts
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # transformers 4.53.1 training_args.py:978-979
    teacher=None,  # ours: nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
