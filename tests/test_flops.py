"""What one guided step costs at full size, counted on the meta device: no weights, no time."""

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from bench.straightforward import install_straightforward
from model.attention import States, Wiring, install_joining, project_references, self_attention_layers
from model.random_checkpoint import FULL

ROWS = 2
TERA = 1e12


def full_size_unet() -> UNet2DConditionModel:
    """Return SD 2.1's UNet without weights."""
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(FULL.unet).eval()


def states_of(unet: UNet2DConditionModel, rows: int) -> States:
    """Return states of the shapes that the full-size ReferenceNets hand on at 512 px."""
    sides = {320: 64, 640: 32, 1280: 16}
    states = {}
    for name, attn in self_attention_layers(unet).items():
        side = 8 if name.startswith("mid_block") else sides[attn.query_dim]
        states[name] = torch.empty(rows, side * side, attn.query_dim, device="meta")
    return states


def step_multiply_adds(unet: UNet2DConditionModel, references: object) -> float:
    """Count the multiply-adds of one step with both rows at 512 px."""
    latents = torch.empty(ROWS, 4, 64, 64, device="meta")
    context = torch.empty(ROWS, 2, 1024, device="meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        unet(
            latents,
            torch.tensor(999, device="meta"),
            encoder_hidden_states=context,
            cross_attention_kwargs={"references": references},
        )
    return counter.get_total_flops() / 2


def test_one_guided_step_at_512_px_costs_at_most_1_05_tera_multiply_adds() -> None:
    """References are projected once per image and queries are the UNet's own: at most 1.05 T."""
    unet = full_size_unet()
    install_joining(unet)
    with torch.inference_mode():
        references = project_references(
            unet, Wiring.FIRST_OF_BLOCK, states_of(unet, ROWS), states_of(unet, 1)
        )
    assert 0.9 * TERA < step_multiply_adds(unet, references) <= 1.05 * TERA


def test_the_straightforward_step_costs_1_88_tera_multiply_adds() -> None:
    """The counter sees the work that is saved: the same network computed plainly costs 1.88 T."""
    unet = full_size_unet()
    install_straightforward(unet, Wiring.FIRST_OF_BLOCK)
    counted = step_multiply_adds(unet, (states_of(unet, ROWS), states_of(unet, ROWS)))
    assert 1.85 * TERA < counted < 1.91 * TERA
