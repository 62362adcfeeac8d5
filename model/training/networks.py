"""The three networks under training, and their forward pass from latents and tokens to v.

`start` makes them from configs or from Stable Diffusion; `loop` trains them. At inference the same networks
run through `model.conditioning` and `model.sampling`, whose processors keep keys and values between steps and
so have no gradient; the ones here are the same function.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from model.attention import (
    Positions,
    Segment,
    States,
    Wiring,
    attend,
    install,
    install_capture,
    self_attention_layers,
    split_heads,
)


class Trained(StrEnum):
    """Which parameters move."""

    AS_PUBLISHED = "as-published"
    """The whole UNet, and the attention modules of the ReferenceNets: the start is a pretrained UNet."""
    EVERYTHING = "everything"
    """The start is random."""


@dataclass(frozen=True)
class Examples:
    """What the networks see of a batch: encoded pictures, and rows that each read two of them.

    Latents are (n, channels, height, width), tokens (n, width); `source_row` and `driving_row` (rows,) say
    which of them a row of `noisy` (rows, channels, height, width) at its timestep (rows,) reads.
    """

    source_latents: Tensor
    source_tokens: Tensor
    driving_latents: Tensor
    driving_tokens: Tensor
    source_row: Tensor
    driving_row: Tensor
    noisy: Tensor
    timesteps: Tensor


@dataclass(frozen=True)
class Read:
    """The states of both ReferenceNets, a picture a row, and which pictures each row of the UNet reads."""

    source: States
    driving: States
    source_row: Tensor
    driving_row: Tensor


class TrainedSelfAttention:
    """`model.attention.JoinedSelfAttention` with gradients, many rows reading the same pictures."""

    def __init__(self, layer: str, wiring: Wiring, positions: Positions) -> None:
        self.read_layer = wiring.read_by(layer)
        self.positions = positions

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002  None in self-attention
        attention_mask: Tensor | None = None,  # noqa: ARG002  None in self-attention
        *,
        references: Read,
    ) -> Tensor:
        """Attend from the UNet's tokens (rows, tokens, channels) to themselves and both references."""
        source, driving = references.source[self.read_layer], references.driving[self.read_layer]
        placed = self.positions.added_to(hidden_states, Segment.OWN)
        keys = (
            split_heads(attn, attn.to_k(placed)),
            self._rows(
                attn, attn.to_k(self.positions.added_to(source, Segment.SOURCE)), references.source_row
            ),
            self._rows(
                attn, attn.to_k(self.positions.added_to(driving, Segment.DRIVING)), references.driving_row
            ),
        )
        values = (
            split_heads(attn, attn.to_v(hidden_states)),
            self._rows(attn, attn.to_v(source), references.source_row),
            self._rows(attn, attn.to_v(driving), references.driving_row),
        )
        query = split_heads(attn, attn.to_q(placed))
        return attend(attn, query, torch.cat(keys, dim=2), torch.cat(values, dim=2))

    @staticmethod
    def _rows(attn: Attention, projected: Tensor, rows: Tensor) -> Tensor:
        return split_heads(attn, projected.index_select(0, rows))


class Networks(nn.Module):
    """The UNet and both ReferenceNets, called as one module, so that `accelerate` can wrap it."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        referencenet: UNet2DConditionModel,
        conditioning_referencenet: UNet2DConditionModel,
        wiring: Wiring,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.unet, self.referencenet = unet, referencenet
        self.conditioning_referencenet = conditioning_referencenet
        install(unet, lambda layer: TrainedSelfAttention(layer, wiring, positions))
        for network in (referencenet, conditioning_referencenet):
            install_capture(network, positions)

    def forward(self, examples: Examples) -> Tensor:
        """Return the predicted v (rows, channels, height, width)."""
        context = torch.stack(
            (
                examples.source_tokens.index_select(0, examples.source_row),
                examples.driving_tokens.index_select(0, examples.driving_row),
            ),
            dim=1,
        )
        references = Read(
            states_of(self.referencenet, examples.source_latents, examples.source_tokens),
            states_of(self.conditioning_referencenet, examples.driving_latents, examples.driving_tokens),
            examples.source_row,
            examples.driving_row,
        )
        v: Tensor = self.unet(
            examples.noisy.contiguous(memory_format=torch.channels_last),
            examples.timesteps,
            encoder_hidden_states=context,
            cross_attention_kwargs={"references": references},
        ).sample
        return v

    def moving(self) -> list[nn.Parameter]:
        """Return the trained parameters."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def choose(self, trained: Trained) -> None:
        """Freeze what does not move, for good."""
        self.requires_grad_(requires_grad=True)
        if trained is Trained.AS_PUBLISHED:
            for network in (self.referencenet, self.conditioning_referencenet):
                network.requires_grad_(requires_grad=False)
                for module in network.modules():
                    if isinstance(module, Attention):
                        module.requires_grad_(requires_grad=True)


def states_of(referencenet: UNet2DConditionModel, latents: Tensor, tokens: Tensor) -> States:
    """Run a ReferenceNet at timestep 0 with gradients (`model.checkpoint.reference_states` has none)."""
    states: States = {}
    latents = latents.contiguous(memory_format=torch.channels_last)
    referencenet(latents, 0, encoder_hidden_states=tokens[:, None], cross_attention_kwargs={"states": states})
    return states


@torch.no_grad()
def start_looking(network: UNet2DConditionModel, positions: Positions) -> None:
    """Let each head of a random network start out looking at like tokens of one segment.

    Keys start equal to queries, turned in the channels that tell the segment (`model.attention.sinusoids`),
    so that a query of the UNet meets the keys of the head's segment. From random starts the references are
    found late.
    """
    turned = [Segment.OWN, Segment.SOURCE, Segment.DRIVING, Segment.SOURCE]
    for attn in self_attention_layers(network).values():
        channels = attn.to_q.weight.shape[1]
        attn.to_q.weight.normal_(std=channels**-0.5)
        attn.to_k.weight.copy_(attn.to_q.weight)
        if positions is Positions.NONE:
            continue
        for head, rows in enumerate(attn.to_k.weight.chunk(attn.heads)):
            angle = torch.tensor(2 * torch.pi * turned[head % 4] / len(Segment))
            cosines, sines = rows[:, 0 : channels // 4 : 2].clone(), rows[:, 1 : channels // 4 : 2].clone()
            # Key weights w' with w' . code(segment + s) = w . code(s): the code's angle turned back.
            rows[:, 0 : channels // 4 : 2] = cosines * angle.cos() - sines * angle.sin()
            rows[:, 1 : channels // 4 : 2] = cosines * angle.sin() + sines * angle.cos()


def matrices(networks: Networks) -> Iterator[nn.Parameter]:
    """Yield the trained matrices and convolutions inside: neither first, last nor of the time."""
    for name, parameter in networks.named_parameters():
        outer = ("conv_in.", "conv_out.", "time_embedding.")
        if parameter.requires_grad and parameter.ndim > 1 and not any(part in name for part in outer):
            yield parameter
