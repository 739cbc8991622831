"""LLaDA 8B's pre-training: absorbing noise on rows of 4,096 tokens (1 % cut to a random length), no time conditioning.

Run      accelerate launch --config_file recipes/launch/fsdp2_8.yaml -m repro.recipes.llada_pretrain
Toy      python -m repro.recipes.llada_pretrain --scale nano         one core, no download
Cost     130,000 H800 GPU hours (arXiv 2502.09992, section 2.2); --plan: 109,000 on H100s with activation checkpointing
Expect   with the authors' corpus, LLaDA 8B Base: MMLU 65.9, GSM8K 70.3, HellaSwag 70.5 (arXiv 2502.09992)
Source   arXiv 2502.09992, section 2.2 and appendix B; ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md;
         docs/method.md#llada-objective, docs/method.md#llada-pretraining
Departs  the 2.3 T tokens are not public, so the corpus is another one; settings that the paper does not state are
         marked in their comments
"""

from repro.core.schedules import WarmupStableDropDecay
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import Packed
from repro.data.pretrained import Pretrained
from repro.models.llama import LlamaFloat32Rope
from repro.objectives.elbo import IndependentElbo
from repro.objectives.lengths import RandomLength
from repro.objectives.objective import RowGroup
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="llada_pretrain",  # ours: its name in repro/core/registry.py
    data=Counted(
        data=Packed(
            documents=Hub(
                source="HuggingFaceFW/fineweb-edu",  # ours: a stand-in, LLaDA's corpus is not public
                config=None,  # ours: all of it
                revision=UNRESOLVED,  # ours: a stand-in has no published revision; resolved by the first online run
                split="train[:-10000]",  # ours: all but the held-out rows
                heldout_split="train[-10000:]",  # ours: LLaDA's held-out set is unknown
                column="text",  # ours: its column of texts
            ),
            units=Pretrained(
                source="GSAI-ML/LLaDA-8B-Base",  # ours: LLaDA's own tokenizer
                revision=UNRESOLVED,  # not pinned by the paper
                size=126_464,  # arXiv 2502.09992 table 5: vocabulary
                begin=126_080,  # docs/method.md#llada-released: <|startoftext|>
                end=126_081,  # ML-GSAI/LLaDA@b7e6c35 generate.py:92: EOS
                pad=None,  # ours: packed rows have no padding
                mask=126_336,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:16
            ),
            length=4096,  # arXiv 2502.09992 section 2.2
            batch=1000,  # ours: how LLaDA packs is unknown
        ),
        rows=561_523_438,  # arXiv 2502.09992 section 2.2: 2.3e12 tokens / 4,096, each seen once
    ),
    backbone=LlamaFloat32Rope(
        layers=32,  # arXiv 2502.09992 table 5
        width=4096,  # arXiv 2502.09992 table 5
        heads=32,  # arXiv 2502.09992 table 5
        kv_heads=32,  # arXiv 2502.09992 table 5
        ffn=12_288,  # arXiv 2502.09992 table 5
        attention="bidirectional",  # arXiv 2502.09992 section 2.2: no causal mask
        rope_base=500_000.0,  # docs/method.md#llada-released: rope_theta
        norm_eps=1e-5,  # docs/method.md#llada-released: rms_norm_eps
        learned_positions=0,  # docs/method.md#llada-pretraining: RoPE alone
        tied=False,  # arXiv 2502.09992v1 table 5: 8.02 B in all, 6.98 B without embeddings
        init_deviation=0.02,  # ours: the paper does not say; initializer_range of transformers' LlamaConfig
    ),
    process=Absorbing(),  # docs/method.md#llada-objective
    objective=RandomLength(
        loss=IndependentElbo(
            eps=1e-3,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:25-28: forward_process
            group=RowGroup(
                rows=4,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:51: the mean over a local batch of 4
            ),
        ),
        probability=0.01,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:43; arXiv 2502.09992 section 2.2
        rows=4,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:43-45: a whole local batch of 4 is cut
    ),
    optimizer=AdamW(
        lr=4e-4,  # arXiv 2502.09992 section 2.2
        betas=(0.9, 0.95),  # ours: the paper does not say
        eps=1e-8,  # ours: the paper does not say; torch's default
        weight_decay=0.1,  # arXiv 2502.09992 section 2.2
        clip=1.0,  # ours: the paper does not say
    ),
    learning_rate=WarmupStableDropDecay(
        warmup=2000,  # arXiv 2502.09992 section 2.2
        drop=228_882,  # arXiv 2502.09992 section 2.2: after 1.2 T tokens
        level=0.25,  # arXiv 2502.09992 section 2.2: 1e-4 of 4e-4
        decay=57_221,  # arXiv 2502.09992 section 2.2: the last 0.3 T tokens
        final=0.025,  # arXiv 2502.09992 section 2.2: 1e-5 of 4e-4
    ),
    ema=None,  # ours: the paper mentions none
    precision="bf16_master",  # ours: the paper does not say
    batch=1280,  # arXiv 2502.09992 section 2.2
    micro_batch=4,  # arXiv 2502.09992 section 2.2: local batch
    steps=438_690,  # arXiv 2502.09992 section 2.2: 2.3e12 tokens / (1,280 x 4,096)
    log_every=100,  # ours: the paper does not say
    heldout_every=5000,  # ours: the paper does not say
    heldout_rows=1024,  # ours: rows that the bound reads during training
    checkpoint_every=1000,  # ours: the paper does not say
    teacher=None,  # ours: nothing is distilled
    suite="llada_base",  # ours: evals/suites/llada_base.toml
)

if __name__ == "__main__":
    main(RECIPE)
