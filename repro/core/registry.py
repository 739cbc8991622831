"""Registry of parts (configurable components) and recipes. `PARTS`: name of a part -> "MODULE:CLASS"; `RECIPES`: name
of a recipe -> its module. Modules are imported on first use.

To add a part or a recipe, write its file and add its line here; tests that run over these tables then cover it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from repro.core.errors import nearest

if TYPE_CHECKING:
    from repro.core.parts import Part
    from repro.training.recipe import Recipe

PARTS = {
    # the recipe itself
    "recipe": "repro.training.recipe:Recipe",
    "trained_teacher": "repro.training.recipe:TrainedTeacher",
    "released_teacher": "repro.training.recipe:ReleasedTeacher",
    # released weights
    "release": "repro.hub.release:Release",
    # schedules
    "cosine": "repro.core.schedules:Cosine",
    "linear": "repro.core.schedules:Linear",
    "constant_with_warmup": "repro.core.schedules:ConstantWithWarmup",
    "warmup_stable_decay": "repro.core.schedules:WarmupStableDecay",
    "warmup_stable_drop_decay": "repro.core.schedules:WarmupStableDropDecay",
    "prolonged": "repro.core.schedules:Prolonged",
    "linear_to_zero": "repro.core.schedules:LinearToZero",
    "constant": "repro.core.schedules:Constant",
    "constant_until": "repro.core.schedules:ConstantUntil",
    # data
    "language": "repro.data.language:Language",
    "sudoku": "repro.data.sudoku:Sudoku",
    "sotu": "repro.data.documents:Sotu",
    "files": "repro.data.documents:Files",
    "all_files": "repro.data.documents:AllFiles",
    "detokenised": "repro.data.detokenise:Detokenised",
    "hub": "repro.data.documents:Hub",
    "hub_split": "repro.data.documents:HubSplit",
    "column": "repro.data.documents:Column",
    "messages": "repro.data.documents:Messages",
    "mixture": "repro.data.documents:Mixture",
    "text": "repro.data.text:Text",
    "characters": "repro.data.text:Characters",
    "alphabet": "repro.data.text:Alphabet",
    "bpe": "repro.data.byte_level:Bpe",
    "bpe_merges": "repro.data.byte_level:BpeMerges",
    "gpt2": "repro.data.byte_level:Gpt2",
    "pretrained": "repro.data.pretrained:Pretrained",
    "packaged_tokenizer": "repro.hub.packaged_tokenizer:PackagedTokenizer",
    "chat": "repro.data.chat:Chat",
    "packed": "repro.data.packed:Packed",
    "packed_plain": "repro.data.packed:PackedPlain",
    "packed_whole": "repro.data.packed:PackedWhole",
    "padded": "repro.data.packed:Padded",
    "stream": "repro.data.packed:Stream",
    "chats": "repro.data.chats:Chats",
    "dialogues": "repro.data.dialogues:Dialogues",
    "counted": "repro.data.counted:Counted",
    "released": "repro.data.released:Released",
    "seed_chat": "repro.hub.templates:SeedChat",
    "seed_readme": "repro.hub.templates:SeedReadme",
    "own_chat": "repro.hub.templates:OwnChat",
    # backbones
    "llama": "repro.models.llama:Llama",
    "llama_float32_rope": "repro.models.llama:LlamaFloat32Rope",
    "qwen2": "repro.models.llama:Qwen2",
    "gpt2_causal": "repro.models.gpt2:Gpt2",
    "modernbert": "repro.models.modernbert:ModernBert",
    "dit": "repro.models.dit:Dit",
    "dit_causal": "repro.models.dit:DitCausal",
    "dit_blocks": "repro.models.dit:DitBlocks",
    "started": "repro.hub.pretrained:PretrainedBackbone",
    "lora": "repro.hub.lora:Lora",
    "dropped": "repro.models.dit:WithDropout",
    "diffusion_gemma": "repro.models.diffusion_gemma:DiffusionGemma",
    "oracle": "repro.models.oracle:Oracle",
    "shifted": "repro.models.shifted:Shifted",
    "causal_blocks": "repro.models.causal_blocks:CausalBlocks",
    # processes
    "absorbing": "repro.processes.absorbing:Absorbing",
    "block_absorbing": "repro.processes.blocks:BlockAbsorbing",
    "uniform": "repro.processes.uniform:Uniform",
    "left_to_right": "repro.processes.left_to_right:LeftToRight",
    # objectives
    "masked_ce": "repro.objectives.masked_ce:MaskedCE",
    "static_masks": "repro.objectives.masked_ce:Static",
    "fresh_masks": "repro.objectives.masked_ce:Fresh",
    "sym_kl": "repro.objectives.sym_kl:SymKL",
    "sym_kl_script": "repro.objectives.sym_kl:SymKLScript",
    "clean_prompt": "repro.objectives.clean_prompt:CleanPrompt",
    "relaxed_ce": "repro.objectives.sym_kl:RelaxedCE",
    "kappa": "repro.objectives.view_scale:Kappa",
    "kappa_of_alpha": "repro.objectives.view_scale:KappaOfAlpha",
    "no_view_scale": "repro.objectives.view_scale:NoViewScale",
    "dense_tokens": "repro.objectives.soft_tokens:Dense",
    "sparse_tokens": "repro.objectives.soft_tokens:Sparse",
    "elbo": "repro.objectives.elbo:Elbo",
    "independent_elbo": "repro.objectives.elbo:IndependentElbo",
    "random_length": "repro.objectives.lengths:RandomLength",
    "to_longest": "repro.objectives.lengths:ToLongest",
    "block_elbo": "repro.objectives.blocks:BlockElbo",
    "complementary_ce": "repro.objectives.complementary:ComplementaryCE",
    "duo_elbo": "repro.objectives.elbo:DuoElbo",
    "dcd": "repro.objectives.dcd:Dcd",
    "next_token": "repro.objectives.next_token:NextToken",
    "window": "repro.objectives.noise:Window",
    "matched_window": "repro.objectives.noise:MatchedWindow",
    "linear_window": "repro.objectives.noise:LinearWindow",
    "gamma_window": "repro.objectives.noise:GammaWindow",
    "row_group": "repro.objectives.objective:RowGroup",
    "global_batch": "repro.objectives.objective:GlobalBatch",
    # optimizers
    "adamw": "repro.training.optimizer:AdamW",
    "ema": "repro.training.optimizer:Ema",
    # samplers; presets are listed in this order
    "low_confidence": "repro.samplers.ordered:LowConfidence",
    "random": "repro.samplers.ordered:Random",
    "margin": "repro.samplers.ordered:Margin",
    "entropy": "repro.samplers.ordered:Entropy",
    "threshold": "repro.samplers.threshold:Threshold",
    "factor": "repro.samplers.threshold:Factor",
    "entropy_bound": "repro.samplers.threshold:EntropyBound",
    "origin": "repro.samplers.ancestral:Origin",
    "first_hitting": "repro.samplers.ancestral:FirstHitting",
    "remdm_cap": "repro.samplers.remdm:RemdmCap",
    "remdm_rescale": "repro.samplers.remdm:RemdmRescale",
    "remdm_conf": "repro.samplers.remdm:RemdmConf",
    "remdm_loop": "repro.samplers.remdm:RemdmLoop",
    "forward_backward": "repro.samplers.remdm:ForwardBackward",
    "ancestral": "repro.samplers.ancestral:Ancestral",
    "tail": "repro.samplers.tail:Tail",
    "drawn_removal": "repro.samplers.tail:DrawnRemoval",
    "greedy_removal": "repro.samplers.tail:GreedyRemoval",
    "linear_times": "repro.samplers.tail:LinearTimes",
    "held_times": "repro.samplers.tail:HeldTimes",
    "psi": "repro.samplers.psi:Psi",
    "pure_posterior": "repro.samplers.psi:PurePosterior",
    "pure_pc": "repro.samplers.psi:PurePC",
    "constant_kappa": "repro.samplers.psi:ConstantKappa",
    "max_capped": "repro.samplers.psi:MaxCapped",
    "max_rescaled": "repro.samplers.psi:MaxRescaled",
    "constant_sigma": "repro.samplers.psi:ConstantSigma",
    "corrected": "repro.samplers.corrector:Corrected",
    "anywhere": "repro.samplers.corrector:Anywhere",
    "doubtful": "repro.samplers.corrector:Doubtful",
    "renoise": "repro.samplers.renoise:Renoise",
    "autoregressive": "repro.samplers.autoregressive:Autoregressive",
    "lookahead": "repro.samplers.lookahead:Lookahead",
    "shaped": "repro.samplers.logits_processors:ProcessedSampler",
    "guided": "repro.samplers.logits_processors:Guided",
    "tempered": "repro.samplers.logits_processors:Tempered",
    "top_k": "repro.samplers.logits_processors:TopK",
    "nucleus": "repro.samplers.logits_processors:Nucleus",
    "top_p": "repro.samplers.logits_processors:TopP",
    "banned": "repro.samplers.logits_processors:Banned",
    "distrusted": "repro.samplers.position_processors:Distrusted",
    "order_temperature": "repro.samplers.position_processors:OrderTemperature",
    "dream_quotas": "repro.samplers.quotas:DreamQuotas",
    "rounded_quotas": "repro.samplers.quotas:RoundedQuotas",
    "plan": "repro.samplers.plan:Plan",
    "served_plan": "repro.samplers.plan:ServedPlan",
    "prefix_cache": "repro.samplers.plan:PrefixCache",
    "dual_cache": "repro.samplers.plan:DualCache",
    # likelihood estimators
    "subsets": "repro.evals.likelihood.estimators:Subsets",
    "levels": "repro.evals.likelihood.levels:Levels",
    "llada_mc": "repro.evals.likelihood.estimators:LladaMC",
    "llada_round": "repro.evals.likelihood.estimators:LladaRound",
    "elbo_t": "repro.evals.likelihood.estimators:ElboT",
    "next_token_likelihood": "repro.evals.likelihood.orders:NextToken",
    "guided_likelihood": "repro.evals.likelihood.guided:GuidedLikelihood",
    "duel": "repro.evals.likelihood.orders:Duel",
    "confidence": "repro.evals.likelihood.orders:Confidence",
    # tasks
    "heldout_bound": "repro.evals.perplexity.perplexity:HeldoutBound",
    "heldout_bound_up_to": "repro.evals.perplexity.perplexity:HeldoutBoundUpTo",
    "truncated_bound": "repro.evals.perplexity.perplexity:TruncatedBound",
    "perplexity": "repro.evals.perplexity.corpus:Perplexity",
    "truncated_perplexity": "repro.evals.perplexity.corpus:TruncatedPerplexity",
    "wrapped_rows": "repro.evals.perplexity.packings:WrappedRows",
    "wrapped_plain_rows": "repro.evals.perplexity.packings:WrappedPlainRows",
    "padded_rows": "repro.evals.perplexity.packings:PaddedRows",
    "piece_rows": "repro.evals.perplexity.packings:PieceRows",
    "training_curve": "repro.evals.perplexity.perplexity:TrainingCurve",
    "choice_draws": "repro.evals.tasks.choice_draws:ChoiceDraws",
    "cache_error": "repro.evals.tasks.cache_error:CacheError",
    "law": "repro.evals.tasks.law:Law",
    "lookahead_cost": "repro.evals.tasks.lookahead:LookaheadCost",
    "prompted_lookahead": "repro.evals.tasks.lookahead:PromptedLookahead",
    "parallel_agreement": "repro.evals.tasks.lookahead:ParallelAgreement",
    "pass_at_k": "repro.evals.tasks.pass_at_k:PassAtK",
    "generation_quality": "repro.evals.text_quality.quality:GenerationQuality",
    "open_generation": "repro.evals.text_quality.quality:OpenGeneration",
    "redrawn_generation": "repro.evals.text_quality.redrawn:RedrawnGeneration",
    "naive_samples": "repro.evals.text_quality.quality:NaiveSamples",
    "generation_mauve": "repro.evals.text_quality.mauve_tasks:GenerationMauve",
    "naive_mauve": "repro.evals.text_quality.mauve_tasks:NaiveMauve",
    "mauve": "repro.evals.text_quality.mauve:Mauve",
    "open_mauve": "repro.evals.text_quality.references:OpenMauve",
    "external_samples": "repro.evals.text_quality.external_samples:ExternalSamples",
    "external_likeness": "repro.evals.text_quality.external_samples:ExternalLikeness",
    "first_eos_chunks": "repro.evals.text_quality.gen_ppl:FirstEosChunks",
    "no_eos_windows": "repro.evals.text_quality.gen_ppl:NoEosWindows",
    "every_token": "repro.evals.text_quality.gen_ppl:EveryToken",
    "decoding_speed": "repro.evals.tasks.speed:DecodingSpeed",
    "harness_task": "repro.evals.lm.harness:HarnessTask",
    "lm_likelihood": "repro.evals.lm.lm_tasks:LmLikelihood",
    "lm_generation": "repro.evals.lm.lm_tasks:LmGeneration",
    # tasks that a server answers
    "openai_server": "repro.evals.engines.openai:OpenAIServer",
    "engine_likelihood": "repro.evals.engines.tasks:EngineLikelihood",
    "engine_rolling": "repro.evals.engines.tasks:EngineRolling",
    "engine_generation": "repro.evals.engines.tasks:EngineGeneration",
}

RECIPES = {
    "llada": "repro.recipes.llada",
    "duo": "repro.recipes.duo",
    "duo_script": "repro.recipes.duo_script",
    "duo_mended": "repro.recipes.duo_mended",
    "duo_nelbo": "repro.recipes.duo_nelbo",
    "mdlm": "repro.recipes.mdlm",
    "ar": "repro.recipes.ar",
    "mdlm_owt": "repro.recipes.mdlm_owt",
    "mdlm_lm1b": "repro.recipes.mdlm_lm1b",
    "duo_owt": "repro.recipes.duo_owt",
    "duo_owt_distilled": "repro.recipes.duo_owt_distilled",
    "duo_lm1b": "repro.recipes.duo_lm1b",
    "llada_pretrain": "repro.recipes.llada_pretrain",
    "llada_sft": "repro.recipes.llada_sft",
    "llada_sft_lora": "repro.recipes.llada_sft_lora",
    "ar_owt": "repro.recipes.ar_owt",
    "ar_lm1b": "repro.recipes.ar_lm1b",
    "bd3_owt_4": "repro.recipes.bd3_owt_4",
    "bd3_owt_8": "repro.recipes.bd3_owt_8",
    "bd3_owt_16": "repro.recipes.bd3_owt_16",
    "smollm2_block4": "repro.recipes.smollm2_block4",
}

LAYOUTS = {
    "mdlm": "repro.hub.dit:MDLM",
    "duo": "repro.hub.dit:DUO",
    "duo_causal": "repro.hub.dit:DUO_CAUSAL",
    "bd3lm": "repro.hub.dit:BD3LM",
    "bd3lm_whole": "repro.hub.dit:BD3LM_WHOLE",
    "bd3lm_causal": "repro.hub.dit:BD3LM_CAUSAL",
    "llada": "repro.hub.llada:LLADA",
    "dream": "repro.hub.dream:DREAM",
    "modernbert": "repro.hub.modernbert:MODERNBERT",
    "llama": "repro.hub.llama:LLAMA",
    "qwen2": "repro.hub.llama:QWEN2",
    "gpt2": "repro.hub.gpt2:GPT2",
    "diffusion_gemma": "repro.hub.diffusion_gemma:DIFFUSION_GEMMA",
}
"""model_type of config.json, in lower case, -> "MODULE:NAME" of its `Layout`. Names with a suffix are variants that
share a model_type (`Layout.variant`)."""


def resolve(path: str) -> Any:
    """The object that "MODULE:NAME" denotes; the module is imported on use."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def part_class(name: str) -> type[Part]:
    """The class registered under a part's name. ValueError for an unknown name, with the nearest registered one."""
    if name not in PARTS:
        raise ValueError(f"no component (part) {name!r}; {nearest(str(name), PARTS)}")
    return resolve(PARTS[name])


def part_name(cls: type[Part]) -> str:
    """The name under which a part's class is registered; ValueError where it is not registered."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    for name, target in PARTS.items():
        if target == path:
            return name
    raise ValueError(f"{path} is not registered; add its line to PARTS of repro/core/registry.py")


def recipe_module(name: str) -> str:
    """Name of the module of a registered recipe. ValueError for an unknown name, with the nearest registered one."""
    if name not in RECIPES:
        raise ValueError(
            f"no recipe {name!r}; {nearest(name, RECIPES)} (`python -m repro.recipes` lists all)"
        )
    return RECIPES[name]


def recipe(name: str) -> Recipe:
    """The full-scale recipe registered under a name. ValueError for an unknown name, with the nearest registered
    one."""
    return importlib.import_module(recipe_module(name)).RECIPE
