"""The network of GPT-2 (backbone `gpt2`): transformers' module with the attention function of
`repro.models.attention`."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from repro.models.attention import KVCache, Mask, View, registered
from repro.models.denoiser import Denoiser, Head, Soft, columns_and_positions, embed, initialise
from repro.models.gpt2 import Gpt2
from repro.processes.prediction import Role


class Gpt2Denoiser(Denoiser):
    """transformers' GPT2LMHeadModel as a denoiser; a position sees itself and the positions before it."""

    def __init__(self, pins: Gpt2, role: Role, seed: int) -> None:
        super().__init__(role)
        config = GPT2Config(
            vocab_size=role.vocabulary.total,
            n_embd=pins.width,
            n_layer=pins.layers,
            n_head=pins.heads,
            n_inner=pins.ffn,
            n_positions=pins.positions,
            layer_norm_epsilon=pins.norm_eps,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=role.vocabulary.bos,
            eos_token_id=role.vocabulary.eos,
        )
        config._attn_implementation = registered()
        self.network = GPT2LMHeadModel(config)
        initialise(self, seed, pins.init_deviation)

    def encode(
        self,
        tokens: Tensor | Soft,
        *,
        t: Tensor | None,
        attention: Mask,
        positions: Tensor | None = None,
        kv_cache: KVCache | None = None,
    ) -> Tensor:
        assert t is None, "GPT-2 does not read t"
        embedded = embed(self.network.transformer.wte, tokens)
        columns, where = columns_and_positions(embedded, positions, kv_cache)
        view = View(attention.of_network(1), columns, kv_cache)
        return self.network.transformer(
            inputs_embeds=embedded, position_ids=where, use_cache=False, view=view
        ).last_hidden_state

    def head(self) -> Head:
        return Head.of(self.network.lm_head, self.forbidden)

    def layers(self) -> list[nn.Module]:
        return list(self.network.transformer.h)
