"""LLaDA 8B's supervised fine-tuning by LoRA: low-rank adapters of every matrix of the layers, as dllm trains them.

Run      accelerate launch --config_file recipes/launch/ddp_8.yaml -m repro.recipes.llada_sft_lora
Toy      python -m repro.recipes.llada_sft_lora --scale nano    one core, no download; all weights, no adapters
Cost     1.1 GPU hours on H100s by --plan (not measured; all rows counted as 1,024 tokens)
Expect   no published number: the original script is an example
Source   ZHZisZZ/dllm@ca17675 examples/llada/sft.py with --lora True; docs/method.md#lora
Departs  the frozen weights are kept in bfloat16 (the original's README: in 4 bits); rows are not grouped by length; a
         pair that does not fit is dropped (the original cuts it); the pair of a dialogue is one of its answers, drawn
         once (the original: the last one); the 1,000 held-out rows are other ones than the original's. The recipe needs
         the extra `lora`
"""

from repro.core.schedules import Cosine
from repro.data.corpus import UNRESOLVED
from repro.data.dialogues import Dialogues
from repro.hub.lora import Lora
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
    name="llada_sft_lora",  # ours: its name in repro/core/registry.py
    data=Dialogues(
        source="allenai/tulu-3-sft-mixture",  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:49
        revision=UNRESOLVED,  # not pinned by the papers; resolved by the first online run
        split="train[:11000]",  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:49: train:10000, test:1000
        source_rows=11_000,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:49
        tokenizer="GSAI-ML/LLaDA-8B-Base",  # ours: the tokenizer of the weights
        tokenizer_revision=UNRESOLVED,  # not pinned by the papers
        head="<|start_header_id|>{role}<|end_header_id|>\n\n",  # docs/method.md#llada-released: chat template
        tail="<|eot_id|>",  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:61: <eot_id>
        length=1024,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:37: max_length
        heldout_fraction=0.0909,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:49: 1,000 of 11,000
        seed=0,  # ours: seed of the split
        size=126_464,  # arXiv 2502.09992 table 5: vocabulary
        mask=126_336,  # ML-GSAI/LLaDA@b7e6c35 GUIDELINES.md:16
        begin=126_080,  # docs/method.md#llada-released: <|startoftext|>
        end=126_081,  # ML-GSAI/LLaDA@b7e6c35 generate.py:92: EOS
    ),
    backbone=Lora(
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
                init_deviation=0.02,  # ours: no weight is drawn
            ),
            source="GSAI-ML/LLaDA-8B-Base",  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:44
            revision=UNRESOLVED,  # not pinned by the papers
        ),
        rank=32,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:20: r
        alpha=64.0,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:21: lora_alpha
        dropout=0.05,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:22: lora_dropout
        targets=(
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ),  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:19: all-linear
        mask_embedding=False,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:24: modules_to_save is None
    ),
    process=Absorbing(),  # docs/method.md#llada-objective
    objective=ToLongest(
        loss=IndependentElbo(
            eps=1e-3,  # ZHZisZZ/dllm@ca17675 dllm/core/trainers/mdlm.py:27: time_epsilon
            group=RowGroup(
                rows=4,  # ZHZisZZ/dllm@ca17675 dllm/core/trainers/mdlm.py:201-202: by the tokens of a GPU's batch
            ),
        ),
        rows=4,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:110-119: padded with EOS, which is scored
    ),
    optimizer=AdamW(
        lr=2e-5,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:62
        betas=(0.9, 0.999),  # ours: the script does not say; default of transformers' Trainer
        eps=1e-8,  # ours: the script does not say; default of transformers' Trainer
        weight_decay=0.0,  # ours: the script does not say; default of transformers' Trainer
        clip=1.0,  # ours: the script does not say; default of transformers' Trainer
    ),
    learning_rate=Cosine(
        warmup=157,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:58-62: cosine, warmup_ratio 0.1
    ),
    ema=None,  # ours: the script has none
    precision="bf16_master",  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:14: weights in bfloat16; peft's in float32
    batch=32,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:63: 4 a GPU, 8 GPUs (README.md)
    micro_batch=4,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:63
    steps=1565,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:61: 5 epochs of 313 steps
    log_every=10,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:64: logging_steps
    heldout_every=157,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:67: a tenth of the run
    heldout_rows=1000,  # ZHZisZZ/dllm@ca17675 examples/llada/sft.py:49: test:1000
    checkpoint_every=157,  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:68: a tenth of the run
    teacher=None,  # ours: nothing is distilled
    suite="llada_instruct",  # ours: evals/suites/llada_instruct.toml
)

if __name__ == "__main__":
    main(RECIPE)
