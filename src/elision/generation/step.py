"""One more token for every row of a cache: what `TransformerModel.continue_with` computes, with less around it.

Small models on a CPU spend as long on calling modules as on their products when they read one token at a time. Here weights
are looked up once, a state is a row [D], and masks and biases are made once for all layers. Tests hold it equal to
`continue_with` for every kind of block.

R rows, E sources, D hidden size, H heads, G heads of keys and values, C channels of a head, K keys, S places of a source.
"""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.generation.packing import PackedHead, States, can_pack, product
from elision.model.attention import UNSEEN, Attention, CrossAttention
from elision.model.block import Block
from elision.model.cache import Cache, LayerCache
from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.heads import VocabularyHead
from elision.model.language_model import LanguageModel
from elision.model.position import Angles, rotated
from elision.model.rms_norm import RMSNorm
from elision.model.transformer import TransformerModel


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model's weights as they are used token by token; made anew when they change.

    step: None where the backbone's own `continue_with` must do. score: from states [..., D] to scores [..., V].
    """

    step: "Step | None"
    score: States


@torch.inference_mode()
def prepared(model: LanguageModel, packed: bool = False) -> Prepared:
    """Return the weights of a model in evaluation mode; `packed`: laid out for several rows, which takes them once more."""
    backbone, objective = model.backbone, model.token_objective
    stack = backbone.decoder if isinstance(backbone, EncoderDecoderModel) else backbone
    on_cpu = next(model.parameters()).device.type == "cpu"
    step = Step(stack, packed) if isinstance(stack, TransformerModel) and on_cpu and not stack.training else None
    head = model.heads[objective.name]
    if packed and type(head) is VocabularyHead:
        table = backbone.table if head.table is None else head.table.weight
        if can_pack(table):
            head = PackedHead(table, head.bias)
    return Prepared(step, lambda hidden: objective.logits(head, backbone, hidden))


class Step:
    """Reads one token for each row. It uses the weights as they are; make a new one when they are replaced."""

    def __init__(self, stack: TransformerModel, packed: bool):
        self._stack, self._blocks = stack, [_Block(block, packed) for block in stack.blocks]
        self._project = None if stack.project is None else _linear(stack.project, packed)
        self._final_norm = _norm(stack.final_norm)
        self._bias_H1N: Tensor | None = None

    def __call__(self, tokens_R: Tensor, cache: Cache) -> Tensor:
        """Return the states [R, D] after the tokens, which the cache takes in."""
        stack, end = self._stack, cache.length + 1
        positions_R1 = torch.full((len(tokens_R), 1), cache.length)
        if cache.padding is not None:
            positions_R1 -= cache.padding[:, None]
        hidden_RD = stack.embeddings.embed(tokens_R[:, None], positions_R1)[:, 0]
        if self._project is not None:
            hidden_RD = self._project(hidden_RD)
        angles = None if stack.rotary is None else stack.rotary.angles(positions_R1, hidden_RD.dtype)
        masks: dict[int, Tensor | None] = {}
        source_mask = None if cache.source_seen is None else cache.source_seen[:, None, None, :]
        for block, layer in zip(self._blocks, cache.layers, strict=True):
            num_keys = end if layer.window is None else layer.num_held + 1
            if num_keys not in masks:
                masks[num_keys] = self._mask(cache, num_keys, hidden_RD.dtype)
            hidden_RD = block(hidden_RD, layer, masks[num_keys], angles, source_mask)
        cache.length = end
        return hidden_RD if self._final_norm is None else self._final_norm(hidden_RD)

    def _mask(self, cache: Cache, num_keys: int, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores, or which are seen, [R or 1, H or 1, 1, K]; None = all."""
        seen = cache.seen(1, num_keys)
        if self._stack.bias is None:
            return seen
        bias = self._bias(num_keys)[None].to(dtype)
        return bias if seen is None else bias.masked_fill(~seen, max(UNSEEN, torch.finfo(dtype).min))

    def _bias(self, num_keys: int) -> Tensor:
        # Biases know only distances, so those of more keys hold those of fewer.
        if self._bias_H1N is None or self._bias_H1N.shape[2] < num_keys:
            places = torch.arange(max(64, 2 * num_keys))
            both_ways = self._stack.settings.visibility != "causal"
            self._bias_H1N = self._stack.bias.bias(places[-1:], places, both_ways)
        return self._bias_H1N[:, :, -num_keys:]


class _Block:
    """The function of a `Block` for one token of each row."""

    def __init__(self, block: Block, packed: bool):
        (attends,), (feeds,) = block._attends, block._feeds
        self.parallel = block.parallel
        self.norms = (_norm(attends.norm_before_attention), _norm(attends.norm_after_attention))
        self.attention = _attention(attends.attention, packed)
        self.cross = None
        if block.cross_attention is not None:
            self.cross = _cross_attention(block.cross_attention, packed)
            self.cross_norms = (_norm(block.norm_before_cross_attention), _norm(block.norm_after_cross_attention))
        self.feed_norms = (_norm(feeds.norm_before_feedforward), _norm(feeds.norm_after_feedforward))
        inner, output, activation = feeds.feedforward.inner, feeds.feedforward.output, feeds.feedforward.activation
        self.inner, self.output, self.activation = _linear(inner, packed), _linear(output, packed), activation
        self.gate = None if feeds.feedforward.gate is None else _linear(feeds.feedforward.gate, packed)

    def __call__(
        self, hidden: Tensor, cache: LayerCache, mask: Tensor | None, angles: Angles | None, source_mask: Tensor | None
    ) -> Tensor:
        before, after = self.norms
        added = self.attention(hidden if before is None else before(hidden), cache, mask, angles)
        if self.parallel:
            return hidden + added + self.feed(hidden)
        hidden = hidden + added if after is None else after(hidden + added)
        if self.cross is not None:
            before, after = self.cross_norms
            added = self.cross(hidden if before is None else before(hidden), cache, source_mask)
            hidden = hidden + added if after is None else after(hidden + added)
        after = self.feed_norms[1]
        added = self.feed(hidden)
        return hidden + added if after is None else after(hidden + added)

    def feed(self, hidden: Tensor) -> Tensor:
        before = self.feed_norms[0]
        if before is not None:
            hidden = before(hidden)
        if self.gate is None:
            return self.output(self.activation(self.inner(hidden)))
        return self.output(self.activation(self.gate(hidden)) * self.inner(hidden))


def _attention(module: Attention, packed: bool) -> Callable[[Tensor, LayerCache, Tensor | None, Angles | None], Tensor]:
    inward, outward = _linear(module.query_key_value, packed), _linear(module.output, packed)
    heads, shared, channels, scale = module.num_heads, module.num_key_value_heads, module.head_size, module.scale
    parts, looking, grouped = heads + 2 * shared, heads + shared, heads != shared

    def attention(hidden_RD: Tensor, cache: LayerCache, mask: Tensor | None, angles: Angles | None) -> Tensor:
        split = inward(hidden_RD).view(len(hidden_RD), parts, 1, channels)
        turned = split[:, :looking] if angles is None else rotated(split[:, :looking], angles)
        key_RGKC, value_RGKC = cache.append(turned[:, heads:], split[:, looking:])
        mixed = F.scaled_dot_product_attention(
            turned[:, :heads], key_RGKC, value_RGKC, attn_mask=mask, scale=scale, enable_gqa=grouped
        )
        return outward(mixed.reshape(len(hidden_RD), heads * channels))

    return attention


def _cross_attention(module: CrossAttention, packed: bool) -> Callable[[Tensor, LayerCache, Tensor | None], Tensor]:
    inward, outward = _linear(module.query, packed), _linear(module.output, packed)
    heads, channels, scale = module.num_heads, module.head_size, module.scale

    def attention(hidden_RD: Tensor, cache: LayerCache, mask: Tensor | None) -> Tensor:
        key_EHSC, value_EHSC = cache.cross
        # All rows of a source are so many queries of it.
        query = inward(hidden_RD).view(key_EHSC.shape[0], -1, heads, channels).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key_EHSC, value_EHSC, attn_mask=mask, scale=scale)
        return outward(mixed.transpose(1, 2).reshape(len(hidden_RD), heads * channels))

    return attention


def _linear(module: nn.Linear, packed: bool) -> States:
    return product(module.weight, module.bias, packed)


def _norm(module: nn.Module) -> States | None:
    if isinstance(module, nn.Identity):
        return None
    weight, eps = module.weight, module.eps
    if isinstance(module, RMSNorm):
        return lambda hidden: torch.rms_norm(hidden, weight.shape, weight, eps)
    assert type(module) is nn.LayerNorm
    bias = module.bias
    return lambda hidden: torch.layer_norm(hidden, weight.shape, weight, bias, eps)
