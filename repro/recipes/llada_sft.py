"""LLaDA 8B's supervised fine-tuning: only answers are noised; rows are padded with EOS to the longest of their batch.

Run      accelerate launch --config_file recipes/launch/fsdp2_8.yaml -m repro.recipes.llada_sft
Toy      python -m repro.recipes.llada_sft --scale nano         one core, no download
Cost     no published time; by --plan 2,600 GPU hours on H100s (not measured; all rows counted as 4,096 tokens)
Expect   with the authors' pairs, LLaDA 8B Instruct: GSM8K 69.4, MMLU 65.5 (arXiv 2502.09992; ML-GSAI/LLaDA EVAL.md)
Source   arXiv 2502.09992, section 2.3 and appendix B.1; ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md; docs/method.md#llada-sft
Departs  the 4.5 M prompt-answer pairs are not public, so the data is another set; the pair of a dialogue is drawn once,
         not in each epoch; the paper's steps (3 epochs of its pairs) are about 15.7 epochs of this set; settings that
         the paper does not state are marked in their comments
"""

from repro.core.schedules import WarmupStableDecay
from repro.data.corpus import UNRESOLVED
from repro.data.dialogues import Dialogues
from repro.hub.pretrained import PretrainedBackbone
from repro.models.llama import LlamaFloat32Rope
from repro.objectives.elbo import IndependentElbo
from repro.objectives.lengths import ToLongest
from repro.objectives.objective import RowGroup
from repro.processes.absorbing import Absorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="llada_sft",  # ours: its name in repro/core/registry.py
    data=Dialogues(
        source="allenai/tulu-3-sft-mixture-0225",  # ours: a stand-in, LLaDA's pairs are not public
        revision=UNRESOLVED,  # ours: a stand-in has no published revision; resolved by the first online run
        split="train",  # ours: the stand-in's only split
        source_rows=866_138,  # docs/method.md#masked-script: the expected count; LLaDA has 4.5 M pairs
        tokenizer="GSAI-ML/LLaDA-8B-Base",  # ours: LLaDA's own tokenizer
        tokenizer_revision=UNRESOLVED,  # not pinned by the paper
        head="<|start_header_id|>{role}<|end_header_id|>\n\n",  # docs/method.md#llada-released: chat template
        tail="<|eot_id|>",  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:61: <eot_id>
        length=4096,  # ours: as in pre-training; the paper does not say
        heldout_fraction=0.01,  # ours: the paper does not say
        seed=0,  # ours: seed of the split
        size=126_464,  # arXiv 2502.09992 table 5: vocabulary
        mask=126_336,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:16
        begin=126_080,  # docs/method.md#llada-released: <|startoftext|>
        end=126_081,  # ML-GSAI/LLaDA@b7e6c35 generate.py:92: EOS
    ),
    backbone=PretrainedBackbone(
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
        source="GSAI-ML/LLaDA-8B-Base",  # arXiv 2502.09992 section 2.3: fine-tunes the base model
        revision=UNRESOLVED,  # not pinned by the paper
    ),
    process=Absorbing(),  # docs/method.md#llada-objective
    objective=ToLongest(
        loss=IndependentElbo(
            eps=1e-3,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:25-28: forward_process
            group=RowGroup(
                rows=1,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:82-90: by each answer's length, then over rows
            ),
        ),
        rows=2,  # arXiv 2502.09992 section 2.3: EOS pads a local batch of 2
    ),
    optimizer=AdamW(
        lr=2.5e-5,  # arXiv 2502.09992 section 2.3
        betas=(0.9, 0.95),  # ours: the paper does not say
        eps=1e-8,  # ours: the paper does not say; torch's default
        weight_decay=0.1,  # arXiv 2502.09992 section 2.3
        clip=1.0,  # ours: the paper does not say
    ),
    learning_rate=WarmupStableDecay(
        warmup=50,  # arXiv 2502.09992 section 2.3
        decay=5273,  # arXiv 2502.09992 section 2.3: the last 10 %
        final=0.1,  # arXiv 2502.09992 section 2.3: 2.5e-6 of 2.5e-5
    ),
    ema=None,  # ours: the paper mentions none
    precision="bf16_master",  # ours: the paper does not say
    batch=256,  # arXiv 2502.09992 section 2.3
    micro_batch=2,  # arXiv 2502.09992 section 2.3: local batch
    steps=52_734,  # arXiv 2502.09992 section 2.3: 3 epochs of 4.5 M pairs / 256
    log_every=100,  # ours: the paper does not say
    heldout_every=1000,  # ours: the paper does not say
    heldout_rows=1024,  # ours: rows that the bound reads during training
    checkpoint_every=1000,  # ours: the paper does not say
    teacher=None,  # ours: nothing is distilled
    suite="llada_instruct",  # ours: evals/suites/llada_instruct.toml
)

if __name__ == "__main__":
    main(RECIPE)
