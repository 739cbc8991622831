"""LLaDA 8B's pre-training: absorbing noise on 4,096 ids, 1 % of the rows cut to a random length, no time told.

Run      accelerate launch --config_file recipes/launch/fsdp2_8.yaml -m repro.recipes.llada_pretrain
Toy      python -m repro.recipes.llada_pretrain --scale nano         one core, no download
Cost     130,000 H800 GPU hours (arXiv 2502.09992, section 2.2); by --plan 109,000 on H100s, layers recomputed
Expect   as LLaDA 8B Base: MMLU 65.9, GSM8K 70.3, HellaSwag 70.5 (arXiv 2502.09992), with the authors' corpus
Source   arXiv 2502.09992, section 2.2 and appendix B; ML-GSAI/LLaDA GUIDELINES.md; docs/method.md#llada-objective,
docs/method.md#llada-pretraining Departs  the 2.3 T tokens are not public, so the corpus is a stand-in; what the paper
does not say is marked
"""

from repro.core.schedules import WarmupStableDropDecay
from repro.data.corpus import UNRESOLVED
from repro.data.counted import Counted
from repro.data.documents import Hub
from repro.data.packed import Packed
from repro.data.pretrained import Pretrained
from repro.models.llama import Llama
from repro.objectives.elbo import IndependentElbo
from repro.objectives.lengths import RandomLength
from repro.objectives.objective import RowGroup
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="llada_pretrain",  # repro/registry.py
    data=Counted(
        data=Packed(
            documents=Hub(
                source="HuggingFaceFW/fineweb-edu",  # ours: a stand-in, LLaDA's corpus is not public
                config=None,  # ours: all of it
                revision=UNRESOLVED,  # not seen here; resolved by the first online run
                split="train[:-10000]",  # ours
                heldout_split="train[-10000:]",  # ours: LLaDA's held-out set is unknown
                column="text",  # its card, from memory
            ),
            units=Pretrained(
                source="GSAI-ML/LLaDA-8B-Base",  # LLaDA's tokenizer
                revision=UNRESOLVED,  # the paper pins none
                size=126_464,  # arXiv 2502.09992 table 5: vocabulary
                begin=126_080,  # LLaDA tokenizer: <|startoftext|>, from memory
                end=126_081,  # ML-GSAI/LLaDA generate.py: EOS
                pad=None,  # packed rows have none
                mask=126_336,  # ML-GSAI/LLaDA GUIDELINES.md
            ),
            length=4096,  # arXiv 2502.09992 section 2.2
            batch=1000,  # ours: how LLaDA packs is unknown
        ),
        rows=561_523_438,  # 2.3e12 tokens / 4,096: LLaDA saw each once (arXiv 2502.09992 section 2.2)
    ),
    backbone=Llama(
        layers=32,  # arXiv 2502.09992 table 5 (docs/method.md#llada-pretraining)
        width=4096,  # arXiv 2502.09992 table 5
        heads=32,  # arXiv 2502.09992 table 5
        kv_heads=32,  # arXiv 2502.09992 table 5
        ffn=12_288,  # arXiv 2502.09992 table 5
        attention="bidirectional",  # arXiv 2502.09992 section 2.2: no causal mask
        rope_base=500_000.0,  # LLaDA-8B-Base config.json: rope_theta, from memory; the paper does not say
        norm_eps=1e-5,  # LLaDA-8B-Base config.json: rms_norm_eps, from memory; the paper does not say
        learned_positions=0,  # arXiv 2502.09992: RoPE alone
        tied=False,  # arXiv 2502.09992v1 Table 5: 8.02 B in all, 6.98 B without embeddings
        init_deviation=0.02,  # unknown; transformers LlamaConfig: initializer_range
    ),
    process=Absorbing(),  # docs/method.md#llada-objective
    objective=RandomLength(
        loss=IndependentElbo(
            eps=1e-3,  # ML-GSAI/LLaDA GUIDELINES.md: forward_process
            group=RowGroup(
                rows=4,  # ML-GSAI/LLaDA GUIDELINES.md: a mean over the local batch, which is 4
            ),
        ),
        probability=0.01,  # ML-GSAI/LLaDA GUIDELINES.md; arXiv 2502.09992 section 2.2
        rows=4,  # ML-GSAI/LLaDA GUIDELINES.md: a whole local batch is cut
    ),
    optimizer=AdamW(
        lr=4e-4,  # arXiv 2502.09992 section 2.2
        betas=(0.9, 0.95),  # unknown; ours
        eps=1e-8,  # unknown; torch's default
        weight_decay=0.1,  # arXiv 2502.09992 section 2.2
        clip=1.0,  # unknown; ours
    ),
    learning_rate=WarmupStableDropDecay(
        warmup=2000,  # arXiv 2502.09992 section 2.2
        drop=228_882,  # arXiv 2502.09992 section 2.2: after 1.2 T tokens
        level=0.25,  # arXiv 2502.09992 section 2.2: 1e-4 of 4e-4
        decay=57_221,  # arXiv 2502.09992 section 2.2: the last 0.3 T tokens
        final=0.025,  # arXiv 2502.09992 section 2.2: 1e-5 of 4e-4
    ),
    ema=None,  # unknown; none is mentioned
    precision="bf16_master",  # unknown; ours
    batch=1280,  # arXiv 2502.09992 section 2.2
    micro_batch=4,  # arXiv 2502.09992 section 2.2: local batch
    steps=438_690,  # 2.3e12 tokens / (1,280 x 4,096) (arXiv 2502.09992 section 2.2)
    log_every=100,  # ours
    heldout_every=5000,  # ours
    heldout_rows=1024,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=1000,  # ours
    teacher=None,  # nothing is distilled
    suite="llada_base",  # ours: evals/suites/llada_base.toml
)

if __name__ == "__main__":
    main(RECIPE)
