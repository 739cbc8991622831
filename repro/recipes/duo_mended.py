"""Recipe duo (Duo as in tom-pollak/dllm's script) with the two smallest changes that make it learn a language: every
noise level is trained, and rows are not weighted by their noise level. The symmetric KL divergence stays.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.duo_mended
Toy      python -m repro.recipes.duo_mended --scale nano         under a minute, one core, no download
Cost     8 x H100: see --plan
Expect   no published number; at nano its bound, and the negative log-likelihood of its samples in the true
         language, lie between those of duo and duo_nelbo (results/tables/choices.md)
Departs  from recipe duo in `noise` and `view_scale` alone (docs/method.md#duo-mended)
"""

from repro.core.schedules import Linear, LinearToZero
from repro.data.chat import Chat
from repro.data.corpus import UNRESOLVED
from repro.models.modernbert import ModernBert
from repro.objectives.noise import LinearWindow
from repro.objectives.objective import RowGroup
from repro.objectives.soft_tokens import Sparse
from repro.objectives.sym_kl import SymKL
from repro.objectives.view_scale import NoViewScale
from repro.processes.uniform import Uniform
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="duo_mended",  # ours: its name in repro/core/registry.py
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
    objective=SymKL(
        noise=LinearWindow(
            low=1e-3,  # docs/method.md#duo-mended: t as in the bound of arXiv 2506.10892, here from 1e-3 ...
            high=0.999,  # docs/method.md#duo-mended: ... to .999, since alpha = 0 has no finite gamma
        ),
        temperature=LinearToZero(
            start=1e-3,  # tom-pollak/dllm@43ea9ff train_flowlm.py:60-61
            steps=500_000,  # tom-pollak/dllm@43ea9ff train_flowlm.py:60-61 and README.md:234
            floor=1e-8,  # tom-pollak/dllm@43ea9ff train_flowlm.py:60-61
        ),
        tokens=Sparse(
            mass=0.9999,  # ours: same law as dense soft tokens (tested)
        ),
        floor=1e-8,  # tom-pollak/dllm@43ea9ff train_flowlm.py:75-77 (docs/method.md#symmetric-kl)
        view_scale=NoViewScale(),  # docs/method.md#duo-mended: every row has weight 1
        group=RowGroup(
            rows=32,  # tom-pollak/dllm@43ea9ff train_flowlm.py:83: mean over one GPU's tokens, then over GPUs
        ),
    ),
    optimizer=AdamW(
        lr=5e-5,  # transformers 4.53.1 training_args.py:902: train_flowlm.py sets none
        betas=(0.9, 0.999),  # transformers 4.53.1 training_args.py:904-905
        eps=1e-8,  # transformers 4.53.1 training_args.py:906
        weight_decay=0.0,  # transformers 4.53.1 training_args.py:903
        clip=1.0,  # ours: the script clips nothing (docs/method.md#uniform-script)
    ),
    learning_rate=Linear(
        warmup=0,  # transformers 4.53.1 training_args.py:926-929
    ),
    ema=None,  # ours: the reference scripts keep no average
    precision="bf16_master",  # tom-pollak/dllm@43ea9ff train_flowlm.py:94-107: DeepSpeed bf16, float32 master weights
    batch=256,  # tom-pollak/dllm@43ea9ff train_flowlm.py:91: 32 a GPU; README.md:31: 8 GPUs
    micro_batch=32,  # tom-pollak/dllm@43ea9ff train_flowlm.py:91
    steps=500_000,  # tom-pollak/dllm@43ea9ff README.md:234: annealed over 500K steps
    log_every=500,  # ours: the script logs every 20 steps (tom-pollak/dllm@43ea9ff train_flowlm.py:92)
    heldout_every=5000,  # ours: the script never evaluates (docs/method.md#uniform-script)
    heldout_rows=4096,  # ours: rows that the bound reads during training
    checkpoint_every=500,  # transformers 4.53.1 training_args.py:978-979
    teacher=None,  # ours: nothing is distilled
    suite="seed",  # ours: evals/suites/seed.toml
)

if __name__ == "__main__":
    main(RECIPE)
