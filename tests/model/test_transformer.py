"""The trunk against transformers' Llama with copied weights, and its kernels against each other."""

import pytest
import torch
from tiny import randomise
from torch import Tensor

from transfusion.model.transformer import Transformer, TransformerConfig, additive, attend, rotary_angles, rotate

transformers = pytest.importorskip("transformers", reason="parity needs the dev extra")


def causal(length: int) -> Tensor:
    """Make a (1, 1, T, T) causal mask."""
    return torch.ones(length, length, dtype=torch.bool).tril()[None, None]


def llama(config: TransformerConfig) -> torch.nn.Module:
    """Build the reference of the same shape."""
    return transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=8,
            hidden_size=config.dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_base,
        )
    ).eval()


NAMES = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
}


@pytest.mark.parametrize("num_kv_heads", [None, 2, 1])
def test_trunk_is_llama(num_kv_heads: int | None) -> None:
    config = TransformerConfig(dim=64, depth=3, num_heads=4, num_kv_heads=num_kv_heads)
    trunk, reference = Transformer(config), llama(config)
    randomise(trunk)
    weights = {"norm.weight": trunk.norm.weight}
    for layer, block in enumerate(trunk.blocks):
        for ours, theirs in NAMES.items():
            weights[f"layers.{layer}.{theirs}.weight"] = block.get_submodule(ours).weight
    missing = reference.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["embed_tokens.weight"] and not missing.unexpected_keys
    x = torch.randn(2, 11, 64, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(11).expand(2, 11)
    with torch.inference_mode():
        ours = trunk(x, positions, causal(11))
        theirs = reference(inputs_embeds=x, position_ids=positions).last_hidden_state
    assert float((ours - theirs).abs().max()) < 2e-5  # float32 sums in another order, outputs of size 1


def test_rotation_depends_on_distance_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 1, 1, 8, generator=draw), torch.randn(1, 1, 1, 8, generator=draw)

    def score(query_at: int, key_at: int) -> float:
        angles = [rotary_angles(torch.tensor([[place]]), 8, 10_000.0) for place in (query_at, key_at)]
        return float((rotate(query, *angles[0]) * rotate(key, *angles[1])).sum())

    assert score(5, 2) == pytest.approx(score(13, 10), abs=1e-5)
    assert abs(score(5, 2) - score(2, 5)) > 1e-3


@pytest.mark.parametrize("is_autocast", [False, True])
def test_bf16_on_a_cpu_is_computed_in_fp32(is_autocast: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 9, 16, generator=draw).to(torch.bfloat16)
    key, value = (torch.randn(2, 2, 9, 16, generator=draw).to(torch.bfloat16) for _ in range(2))
    wide = (part.float() for part in (query, key, value))
    exact = attend(*wide, additive(causal(9), torch.float32), is_grouped=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        found = attend(query, key, value, additive(causal(9), torch.bfloat16), is_grouped=True)
    assert torch.equal(found, exact.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masked_keys_have_no_influence_to_the_bit(dtype: torch.dtype) -> None:
    query, key, value = (torch.randn(1, 2, 6, 8).to(dtype) for _ in range(3))
    mask = additive(causal(6), dtype)
    clean = attend(query, key, value, mask, is_grouped=False)
    poisoned = [part.clone() for part in (key, value)]
    for part in poisoned:
        part[:, :, 4:] = 1e4
    assert torch.equal(attend(query, *poisoned, mask, is_grouped=False)[:, :, :4], clean[:, :, :4])


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="dim 30 must be an even multiple of num_heads 4"):
        TransformerConfig(dim=30, num_heads=4)
    with pytest.raises(ValueError, match="num_heads 4 is not a multiple of num_kv_heads 3"):
        TransformerConfig(dim=32, num_heads=4, num_kv_heads=3)
