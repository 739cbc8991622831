"""LLaDA 8B's supervised fine-tuning: answers alone are noised, padded with EOS to the longest neighbour.

Run      accelerate launch --config_file recipes/launch/fsdp2_8.yaml -m repro.recipes.llada_sft
Toy      python -m repro.recipes.llada_sft --scale nano         one core, no download
Cost     no published time; by --plan 2,600 GPU hours on H100s (arithmetic, at full rows of 4,096 ids)
Expect   as LLaDA 8B Instruct: GSM8K 69.4, MMLU 65.5 (arXiv 2502.09992; EVAL.md), with the authors' own pairs
Source   arXiv 2502.09992, section 2.3 and appendix B.1; ML-GSAI/LLaDA GUIDELINES.md; docs/method.md#llada-sft
Departs  the 4.5 M pairs are not public, so they are a stand-in; the pair of a dialogue is drawn once, not each time;
         the paper's steps, 3 epochs of its pairs, are about 15.7 of the stand-in; what the paper does not say is marked
         unknown
"""

from repro.core.schedules import WarmupStableDecay
from repro.data.corpus import UNRESOLVED
from repro.data.dialogues import Dialogues
from repro.hub.pretrained import PretrainedBackbone
from repro.models.llama import Llama
from repro.objectives.elbo import IndependentElbo
from repro.objectives.lengths import ToLongest
from repro.objectives.objective import RowGroup
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="llada_sft",  # repro/registry.py
    data=Dialogues(
        source="allenai/tulu-3-sft-mixture-0225",  # ours: a stand-in, LLaDA's pairs are not public
        revision=UNRESOLVED,  # not seen here; resolved by the first online run
        split="train",  # ours
        source_rows=866_138,  # expected for -0225 (docs/method.md#masked-script); LLaDA has 4.5 M pairs
        tokenizer="GSAI-ML/LLaDA-8B-Base",  # LLaDA's tokenizer
        tokenizer_revision=UNRESOLVED,  # the paper pins none
        head="<|start_header_id|>{role}<|end_header_id|>\n\n",  # LLaDA tokenizer's template, from memory
        tail="<|eot_id|>",  # ML-GSAI/LLaDA GUIDELINES.md: <eot_id>
        length=4096,  # ours: as in pre-training; the paper does not say
        heldout_fraction=0.01,  # ours
        seed=0,  # ours
        size=126_464,  # arXiv 2502.09992 table 5: vocabulary
        mask=126_336,  # ML-GSAI/LLaDA GUIDELINES.md
        begin=126_080,  # LLaDA tokenizer: <|startoftext|>, from memory
        end=126_081,  # ML-GSAI/LLaDA generate.py: EOS
    ),
    backbone=PretrainedBackbone(
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
        source="GSAI-ML/LLaDA-8B-Base",  # arXiv 2502.09992 section 2.3: fine-tunes the base model
        revision=UNRESOLVED,  # the paper pins none
    ),
    process=Absorbing(),  # docs/method.md#llada-objective
    objective=ToLongest(
        loss=IndependentElbo(
            eps=1e-3,  # ML-GSAI/LLaDA GUIDELINES.md: forward_process
            group=RowGroup(
                rows=1,  # ML-GSAI/LLaDA GUIDELINES.md: by each answer's length, then over rows
            ),
        ),
        rows=2,  # arXiv 2502.09992 section 2.3: EOS pads a local batch, which is 2
    ),
    optimizer=AdamW(
        lr=2.5e-5,  # arXiv 2502.09992 section 2.3
        betas=(0.9, 0.95),  # unknown; ours
        eps=1e-8,  # unknown; torch's default
        weight_decay=0.1,  # arXiv 2502.09992 section 2.3
        clip=1.0,  # unknown; ours
    ),
    learning_rate=WarmupStableDecay(
        warmup=50,  # arXiv 2502.09992 section 2.3
        decay=5273,  # arXiv 2502.09992 section 2.3: the last 10 %
        final=0.1,  # arXiv 2502.09992 section 2.3: 2.5e-6 of 2.5e-5
    ),
    ema=None,  # unknown; none is mentioned
    precision="bf16_master",  # unknown; ours
    batch=256,  # arXiv 2502.09992 section 2.3
    micro_batch=2,  # arXiv 2502.09992 section 2.3: local batch
    steps=52_734,  # arXiv 2502.09992 section 2.3: 3 epochs of 4.5 M pairs / 256
    log_every=100,  # ours
    heldout_every=1000,  # ours
    heldout_rows=1024,  # ours: rows of the split that the in-training bound reads
    checkpoint_every=1000,  # ours
    teacher=None,  # nothing is distilled
    suite="llada_instruct",  # ours: evals/suites/llada_instruct.toml
)

if __name__ == "__main__":
    main(RECIPE)
