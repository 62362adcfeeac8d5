"""How the three networks meet: attention processors that take states out of the ReferenceNets and bring
them into the UNet, installed once when a checkpoint is loaded (`model.checkpoint`) and used by every run
(`model.conditioning`, `model.sampling`).

No processor keeps anything of a request: what a forward pass reads or writes comes in with its call,
through diffusers' `cross_attention_kwargs`.

Source of the wiring: Kung et al., "Face Anonymization Made Simple", WACV 2025, section 3.1.
"""

import math
import re
from collections.abc import Callable
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

from model.errors import CheckpointError

States = dict[str, Tensor]
"""The input of each self-attention layer of a ReferenceNet, by layer name: (rows, tokens, channels)."""


class KeysValues(NamedTuple):
    """Keys and values of one self-attention layer, both (rows, heads, 3 x tokens, channels per head).

    The tokens are [own, source, driving]. The first third is scratch space that the layer overwrites with
    the UNet's own tokens in every step, so that nothing is concatenated or copied in a step.
    """

    key: Tensor
    value: Tensor


References = dict[str, KeysValues]
"""What the UNet reads of the two reference images, by self-attention layer."""


class Wiring(StrEnum):
    """Which ReferenceNet layer a self-attention layer of the UNet reads; a property of the checkpoint."""

    FIRST_OF_BLOCK = "first-of-block"
    """Every layer of a block reads the block's first layer: the published weights were trained so."""
    ONE_TO_ONE = "one-to-one"
    """Every layer reads its own counterpart, as the paper's text suggests."""

    def read_by(self, layer: str) -> str:
        """Return the name of the ReferenceNet layer that the UNet's `layer` reads."""
        if self is Wiring.ONE_TO_ONE:
            return layer
        return re.sub(r"attentions\.\d+\.transformer_blocks\.\d+", "attentions.0.transformer_blocks.0", layer)


class Segment(IntEnum):
    """Whose tokens they are, in the order in which the UNet's self-attention joins them."""

    OWN = 0
    SOURCE = 1
    DRIVING = 2


class Positions(StrEnum):
    """What queries and keys of self-attention know of a token's place; a property of the checkpoint."""

    NONE = "none"
    """Nothing, as in Stable Diffusion, whose convolutions tell: the published weights."""
    SINUSOIDAL = "sinusoidal"
    """Row, column and segment: networks with few convolutions learn to look elsewhere much sooner."""

    def added_to(self, hidden_states: Tensor, segment: Segment) -> Tensor:
        """Return what queries or keys are projected from, for tokens (rows, height x width, channels)."""
        if self is Positions.NONE:
            return hidden_states
        _, tokens, channels = hidden_states.shape
        return hidden_states + sinusoids(tokens, channels, segment).to(hidden_states)


@lru_cache
def sinusoids(tokens: int, channels: int, segment: Segment) -> Tensor:
    """Return the code (tokens, channels) of a square picture's tokens: a quarter tells the segment.

    That is a third of a turn a segment; of the rest one half tells the row and one the column, from half a
    turn across the picture to half a turn a token (Vaswani et al., "Attention is all you need", 2017).
    """
    side = math.isqrt(tokens)
    if side * side != tokens or channels % 16:
        raise CheckpointError(
            f"positions need a square picture and channels in sixteens, not {tokens} tokens of {channels}"
        )
    turn = torch.full((tokens, channels // 8), 2 * math.pi * segment / len(Segment))
    rates = torch.logspace(0, 1, channels * 3 // 16, base=float(side)) * (math.pi / side)
    row, column = (
        axis.reshape(-1, 1) * rates for axis in torch.meshgrid([torch.arange(side)] * 2, indexing="ij")
    )
    angles = torch.cat([turn, row, column], dim=1)
    return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1)


class CaptureSelfAttention(AttnProcessor2_0):
    """A ReferenceNet's self-attention: stock, and puts its input into the `states` of the call."""

    def __init__(self, layer: str, positions: Positions) -> None:
        super().__init__()
        self.layer = layer
        self.positions = positions

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        states: States,
    ) -> Tensor:
        """Attend as usual; `states[layer]` becomes the hidden states (rows, tokens, channels)."""
        states[self.layer] = hidden_states
        if self.positions is Positions.NONE:
            attended: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
            return attended
        placed = self.positions.added_to(hidden_states, Segment.OWN)
        return attend(
            attn,
            split_heads(attn, attn.to_q(placed)),
            split_heads(attn, attn.to_k(placed)),
            split_heads(attn, attn.to_v(hidden_states)),
        )


class JoinedSelfAttention:
    """The UNet's self-attention: own queries over the keys and values of [own, source, driving] tokens."""

    def __init__(self, layer: str, positions: Positions) -> None:
        self.layer = layer
        self.positions = positions

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002  None in self-attention
        attention_mask: Tensor | None = None,  # noqa: ARG002  None in self-attention
        *,
        references: References,
    ) -> Tensor:
        """Attend from the UNet's tokens (rows, tokens, channels) to themselves and both references."""
        key, value = references[self.layer]
        tokens = hidden_states.shape[1]
        placed = self.positions.added_to(hidden_states, Segment.OWN)
        key[:, :, :tokens] = split_heads(attn, attn.to_k(placed))
        value[:, :, :tokens] = split_heads(attn, attn.to_v(hidden_states))
        return attend(attn, split_heads(attn, attn.to_q(placed)), key, value)


class PlainCrossAttention(AttnProcessor2_0):
    """Stock cross-attention; it only accepts, and ignores, what the self-attention of the call is given."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        states: States | None = None,  # noqa: ARG002  meant for the self-attention
        references: References | None = None,  # noqa: ARG002  meant for the self-attention
    ) -> Tensor:
        """Attend from the network's tokens to the one or two image tokens."""
        attended: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        return attended


def attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend with heads split, and project to hidden states (rows, tokens, channels)."""
    attended = functional.scaled_dot_product_attention(query, key, value)
    attended = attended.transpose(1, 2).flatten(2)  # (rows, tokens, channels)
    projected: Tensor = attn.to_out[0](attended)
    return projected


def split_heads(attn: Attention, projected: Tensor) -> Tensor:
    """Reshape (rows, tokens, channels) to (rows, heads, tokens, channels per head)."""
    rows, tokens, channels = projected.shape
    return projected.view(rows, tokens, attn.heads, channels // attn.heads).transpose(1, 2)


def self_attention_layers(network: UNet2DConditionModel) -> dict[str, Attention]:
    """Return the self-attention layers of a network by name, in the order of its modules."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, Attention) and name.endswith(".attn1")
    }


def install_capture(referencenet: UNet2DConditionModel, positions: Positions = Positions.NONE) -> None:
    """Let a ReferenceNet hand out its states: call it with `cross_attention_kwargs={"states": {}}`."""
    install(referencenet, lambda layer: CaptureSelfAttention(layer, positions))


def install_joining(unet: UNet2DConditionModel, positions: Positions = Positions.NONE) -> None:
    """Let the UNet read references: call it with `cross_attention_kwargs={"references": references}`."""
    install(unet, lambda layer: JoinedSelfAttention(layer, positions))


def install(network: UNet2DConditionModel, self_attention: Callable[[str], object]) -> None:
    """Give each self-attention layer the processor made of its name, and the others one that ignores its
    call.
    """
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            is_self = name.endswith(".attn1")
            module.set_processor(self_attention(name) if is_self else PlainCrossAttention())


def allocate_references(unet: UNet2DConditionModel, wiring: Wiring, states: States, rows: int) -> References:
    """Return room for the references of `rows` rows, uninitialized; `states` tell each layer's tokens."""
    references: References = {}
    for name, attn in self_attention_layers(unet).items():
        state = states[wiring.read_by(name)]
        channels = attn.to_k.out_features // attn.heads
        shape = (rows, attn.heads, 3 * state.shape[1], channels)
        references[name] = KeysValues(
            torch.empty(shape, dtype=state.dtype, device=state.device),
            torch.empty(shape, dtype=state.dtype, device=state.device),
        )
    return references


def narrow_references(references: References, first: int, last: int) -> References:
    """Return the rows from `first` up to, not including, `last`: views, nothing is copied."""
    return {
        name: KeysValues(keys[first:last], values[first:last]) for name, (keys, values) in references.items()
    }


def move_reference_row(references: References, row: int, to: int) -> None:
    """Copy what one row reads of the reference images to another row."""
    for keys, values in references.values():
        tokens = keys.shape[2] // 3
        keys[to, :, tokens:] = keys[row, :, tokens:]
        values[to, :, tokens:] = values[row, :, tokens:]


def project_references(
    unet: UNet2DConditionModel,
    wiring: Wiring,
    source: States,
    driving: States,
    into: References | None = None,
) -> References:
    """Project the reference states to keys and values, once per image and layer.

    `source` holds (rows, tokens, channels) per layer, `driving` as many rows, or one that all rows share and
    that is projected once. Returns the references of `rows` rows for every step of a run: `into`, which has
    room for them, or new ones.
    """
    rows = next(iter(source.values())).shape[0]
    references = into or allocate_references(unet, wiring, source, rows)
    for name, attn in self_attention_layers(unet).items():
        layer = wiring.read_by(name)
        positions: Positions = attn.processor.positions
        keys, values = references[name]
        tokens = keys.shape[2] // 3
        for segment, states in ((Segment.SOURCE, source[layer]), (Segment.DRIVING, driving[layer])):
            part = slice(segment * tokens, (segment + 1) * tokens)
            keys[:, :, part] = split_heads(attn, attn.to_k(positions.added_to(states, segment)))
            values[:, :, part] = split_heads(attn, attn.to_v(states))
    return references
