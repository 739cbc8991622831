"""Pins of the papers' recipes, typed by hand from the papers; tests/core/test_parts.py compares the recipes."""

from __future__ import annotations

TRAINED = {  # docs/method.md#duo-hyperparameters
    "optimizer.lr": 3e-4,
    "optimizer.betas": (0.9, 0.999),
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip": 1.0,
    "learning_rate.warmup": 2500,
    "ema.decay": 0.9999,
    "precision": "bf16_autocast",
    "batch": 512,
    "steps": 1_000_000,
    "teacher": None,
}
DIT = {  # docs/method.md#duo-hyperparameters: DiT small
    "backbone.rate": 0.1,
    "backbone.backbone.layers": 12,
    "backbone.backbone.width": 768,
    "backbone.backbone.heads": 12,
    "backbone.backbone.ffn": 3072,
    "backbone.backbone.rope_base": 1e4,
}
MODULATED = {"backbone.backbone.condition": 128, "backbone.backbone.frequencies": 256}
UNCONDITIONAL = {
    **MODULATED,
    "backbone.backbone.alpha_end": None,
}  # docs/method.md#mdlm: time conditioning off
CONDITIONAL = {
    **MODULATED,
    "backbone.backbone.alpha_end": 1e-3,
}  # docs/method.md#duo-hyperparameters: sigma = -log a
OWT = {  # docs/method.md#duo-hyperparameters: gpt2, 1024, packed per batch; the last 100 K documents held out
    "data.data.units.source": "gpt2",
    "data.data.units.size": 50_258,
    "data.data.units.begin": 50_256,
    "data.data.units.end": 50_256,
    "data.data.units.pad": 50_257,
    "data.data.length": 1024,
    "data.data.batch": 1000,
    "data.data.documents.split": "train[:-100000]",
    "data.data.documents.heldout_split": "train[-100000:]",
    "data.data.documents.source": "Skylion007/openwebtext",
}
LM1B = {  # docs/method.md#duo-hyperparameters: bert-base-uncased, 128, padded
    "data.data.units.source": "bert-base-uncased",
    "data.data.units.size": 30_522,
    "data.data.units.mask": 103,
    "data.data.units.pad": 0,
    "data.data.length": 128,
    "data.data.documents.rule": "lm1b",
    "data.data.documents.documents.heldout_split": "test",
}
CURRICULUM = {  # docs/method.md#duo-curriculum
    "process.alpha_end": 1e-3,
    "process.eps": 1e-3,
    "objective.temperature.value": 1e-3,
    "objective.temperature.end": 500_000,
    "objective.temperature.after": 1e-10,
    "objective.tokens.mass": 0.9999,
    "objective.until": 500_000,
    "objective.eps": 1e-3,
}
CLAIMS = {
    "mdlm_owt": TRAINED
    | DIT
    | UNCONDITIONAL
    | OWT
    | {"data.data.units.size": 50_257, "data.data.units.pad": None, "objective.eps": 1e-3},
    "mdlm_lm1b": TRAINED | DIT | UNCONDITIONAL | LM1B | {"objective.eps": 1e-3},
    "duo_owt": TRAINED
    | DIT
    | CONDITIONAL
    | OWT
    | CURRICULUM
    | {"objective.window.low": -3.55, "objective.window.high": -1.85},
    "duo_lm1b": TRAINED
    | DIT
    | CONDITIONAL
    | LM1B
    | CURRICULUM
    | {"objective.window.low": -3.5, "objective.window.high": -1.75},
    "ar_owt": TRAINED | DIT | OWT | {"data.data.units.size": 50_257, "data.data.units.pad": None},
    "ar_lm1b": TRAINED | DIT | LM1B,
}
DISTILLED = {  # docs/method.md#duo-hyperparameters: DCD
    "optimizer.lr": 6e-5,
    "learning_rate.warmup": 500,
    "ema.decay": 0.999,
    "batch": 128,
    "micro_batch": 2,
    "steps": 50_000,
    "objective.window.low": -4.0,
    "objective.window.high": -1.0,
    "objective.grid": 512,
    "objective.round": 10_000,
    "objective.eps": 1e-3,
    "process.alpha_end": 1e-3,
    "teacher.source": "s-sahoo/duo",
}
WITHOUT_TEACHER = {pin: value for pin, value in TRAINED.items() if pin != "teacher"}
CLAIMS["duo_owt_distilled"] = WITHOUT_TEACHER | DIT | CONDITIONAL | OWT | DISTILLED
EIGHT_BILLION = {  # docs/method.md#llada-pretraining
    "layers": 32,
    "width": 4096,
    "heads": 32,
    "kv_heads": 32,
    "ffn": 12_288,
    "attention": "bidirectional",
    "tied": False,
}
LLADA = {  # docs/method.md#llada-objective
    "objective.loss.eps": 1e-3,
    "optimizer.weight_decay": 0.1,
    "ema": None,
    "teacher": None,
}
CLAIMS["llada_pretrain"] = LLADA | {
    **{f"backbone.{pin}": value for pin, value in EIGHT_BILLION.items()},
    "objective.probability": 0.01,
    "objective.rows": 4,
    "objective.loss.group.rows": 4,
    "data.data.length": 4096,
    "data.data.units.size": 126_464,
    "data.data.units.mask": 126_336,
    "data.data.units.end": 126_081,
    "optimizer.lr": 4e-4,
    "learning_rate.warmup": 2000,
    "learning_rate.drop": round(1.2e12 / (1280 * 4096)),
    "learning_rate.level": 0.25,
    "learning_rate.decay": round(0.3e12 / (1280 * 4096)) + 1,  # from 2.0 T tokens on: 438,690 - 381,470 + 1
    "learning_rate.final": 0.025,
    "batch": 1280,
    "micro_batch": 4,
    "steps": round(2.3e12 / (1280 * 4096)),
}
CLAIMS["llada_sft"] = LLADA | {  # docs/method.md#llada-sft
    **{f"backbone.backbone.{pin}": value for pin, value in EIGHT_BILLION.items()},
    "backbone.source": "GSAI-ML/LLaDA-8B-Base",
    "objective.rows": 2,
    "objective.loss.group.rows": 1,
    "data.size": 126_464,
    "data.mask": 126_336,
    "data.end": 126_081,
    "optimizer.lr": 2.5e-5,
    "learning_rate.warmup": 50,
    "learning_rate.decay": 5273,  # 10 % of the run
    "learning_rate.final": 0.1,
    "batch": 256,
    "micro_batch": 2,
    "steps": round(3 * 4.5e6 / 256),
}
BLOCK_RANGES = {4: (0.5, 1.0), 8: (0.4, 0.9), 16: (0.3, 0.8)}  # docs/method.md#published-f; 8: ours
for size, (low, high) in BLOCK_RANGES.items():  # docs/method.md#block-diffusion
    CLAIMS[f"bd3_owt_{size}"] = (
        TRAINED
        | {
            pin.replace("backbone.", "backbone.backbone.", 1): value
            for pin, value in (DIT | MODULATED).items()
        }
        | OWT
        | {
            "data.data.units.size": 50_257,
            "data.data.units.pad": None,
            "backbone.source": "kuleshov-group/bd3lm-owt-block_size1024-pretrain",
            "backbone.backbone.backbone.block": size,
            "process.block": size,
            "objective.rate.low": low,
            "objective.rate.high": high,
            "objective.resample": True,
            "micro_batch": 16,
            "steps": 150_000,
        }
    )
KINDS = {
    "llada_pretrain": ("absorbing", "random_length", "warmup_stable_drop_decay"),
    "llada_sft": ("absorbing", "to_longest", "warmup_stable_decay"),
    "duo_owt_distilled": ("uniform", "dcd", "constant_with_warmup"),
    "mdlm_owt": ("absorbing", "elbo", "constant_with_warmup"),
    "mdlm_lm1b": ("absorbing", "elbo", "constant_with_warmup"),
    "duo_owt": ("uniform", "duo_elbo", "constant_with_warmup"),
    "duo_lm1b": ("uniform", "duo_elbo", "constant_with_warmup"),
    "ar_owt": ("left_to_right", "next_token", "constant_with_warmup"),
    "ar_lm1b": ("left_to_right", "next_token", "constant_with_warmup"),
    **{f"bd3_owt_{size}": ("block_absorbing", "block_elbo", "constant_with_warmup") for size in BLOCK_RANGES},
}
SCORES = {
    "llada_pretrain": ("leave_one_out", "truncated bound"),
    "llada_sft": ("leave_one_out", "truncated bound"),
    "duo_owt_distilled": ("leave_one_out", "no bound"),
    "mdlm_owt": ("leave_one_out", "truncated bound"),
    "mdlm_lm1b": ("leave_one_out", "truncated bound"),
    "duo_owt": ("leave_one_out", "truncated bound"),
    "duo_lm1b": ("leave_one_out", "truncated bound"),
    "ar_owt": ("x0_mean", "exact"),
    "ar_lm1b": ("x0_mean", "exact"),
    **{f"bd3_owt_{size}": ("leave_one_out", "no bound") for size in BLOCK_RANGES},
}
