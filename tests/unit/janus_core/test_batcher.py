from __future__ import annotations

import torch

from janus_core.configs import LlamaConfig
from janus_core.engine.batcher import lay_out, lay_out_with_block, next_block, next_step, take
from janus_core.engine.cache import KVCache
from janus_core.engine.guidance import Guidance, without_prompt

CPU = torch.device("cpu")


def test_rows_start_at_zero_and_are_padded_behind() -> None:
    prefill = lay_out([[1, 2, 3], [4]], pad_id=9, device=CPU, slots=[2, 3])
    assert prefill.ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert prefill.last.tolist() == [2, 0]
    assert prefill.step.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert prefill.step.mask is None
    assert prefill.step.slots == [2, 3]


def test_a_step_sees_its_own_positions_and_the_newest() -> None:
    step = next_step(torch.tensor([2, 0]), num_seen=4)
    assert step.positions.tolist() == [[2], [0]]
    assert step.mask is not None
    assert step.mask[:, 0, 0].tolist() == [[True, True, True, False], [True, False, False, False]]


def test_a_block_stands_behind_its_prompt_and_sees_it_unless_it_was_dropped() -> None:
    step = next_block([3, 1, 3], [False, False, True], num_tokens=2, device=CPU)
    assert (step.is_kept, step.slots) == (False, None)
    assert step.positions.tolist() == [[3, 4], [1, 2], [3, 4]]
    assert step.mask is not None
    assert step.mask[:, 0].int().tolist() == [
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]],
        [[1, 0, 0, 1, 0], [1, 0, 0, 1, 1]],
    ]


def test_a_block_in_one_pass_with_the_prompts_sees_what_it_sees_with_a_cache() -> None:
    lengths, dropped = [3, 1], [True, False]
    laid = lay_out_with_block([[1, 2, 3], [4]], dropped, num_tokens=2, pad_id=9, device=CPU)
    block = next_block(lengths, dropped, 2, CPU)
    assert laid.ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert laid.last.tolist() == [2, 0]
    assert laid.step.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 1, 2]]
    assert laid.step.mask is not None
    assert block.mask is not None
    assert laid.step.mask[:, :, 3:].equal(block.mask)
    for row in laid.step.mask[:, 0, :3]:
        assert row.int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_prefills_are_bounded_with_their_padding() -> None:
    assert take([5, 5, 5], num_rows=2, num_tokens=100) == 2
    assert take([5, 5, 5], num_rows=9, num_tokens=100) == 3
    assert take([3, 10, 3], num_rows=9, num_tokens=20) == 2
    assert take([500, 1], num_rows=9, num_tokens=100) == 1, "a long prompt goes alone rather than never"


def small_cache(num_rows: int) -> KVCache:
    sizes = {"hidden_size": 4, "intermediate_size": 4, "vocab_size": 4, "max_positions": 8}
    config = LlamaConfig(
        num_layers=2, num_heads=1, num_kv_heads=1, head_size=4, rope_theta=10000.0, norm_eps=1e-6, **sizes
    )
    return KVCache(config, num_rows, 5, torch.float32, CPU)


def test_cache_keeps_a_prefill_and_appends_each_row_at_its_own_place() -> None:
    cache = small_cache(3)
    keys = torch.arange(1.0, 25.0).view(2, 1, 3, 4)
    prefill = lay_out([[1, 2, 3], [4]], pad_id=0, device=CPU, slots=[1, 2])
    assert cache.write(0, keys, -keys, prefill.step)[0] is keys
    assert torch.equal(cache.k_LRKSE[0, 1:, 0, :3], keys[:, 0])
    cache.move(1, 0, 5)
    cache.move(2, 1, 5)
    seen, values = cache.write(
        0, torch.full((2, 1, 1, 4), 50.0), torch.full((2, 1, 1, 4), 60.0), next_step(torch.tensor([3, 1]), 4)
    )
    assert seen[0, 0, :, 0].tolist() == [1, 5, 9, 50]
    assert seen[1, 0, :2, 0].tolist() == [13, 50]
    assert values[0, 0, :, 0].tolist() == [-1, -5, -9, 60]
    assert not cache.k_LRKSE[1].any(), "another layer"


def test_cache_shows_a_block_behind_what_it_holds_and_forgets_it() -> None:
    cache = small_cache(2)
    prompt = torch.arange(1.0, 25.0).view(2, 1, 3, 4)
    cache.write(1, prompt, -prompt, lay_out([[1, 2, 3], [4]], pad_id=0, device=CPU).step)
    before = cache.k_LRKSE.clone()
    block = torch.full((2, 1, 2, 4), 50.0)
    keys, values = cache.write(1, block, -block, next_block([3, 1], [False, False], 2, CPU))
    assert torch.equal(keys, torch.cat((prompt, block), dim=2))
    assert torch.equal(values, -keys)
    assert torch.equal(cache.k_LRKSE, before)


def test_cache_gives_a_prompt_to_another_slot() -> None:
    once, cache = small_cache(2), small_cache(3)
    once.k_LRKSE[:, 1] = 7
    once.v_LRKSE[:, 1] = 8
    cache.put(2, *once.get(1, 3))
    assert cache.k_LRKSE[0, :, 0, :, 0].tolist() == [[0] * 5, [0] * 5, [7, 7, 7, 0, 0]]
    assert cache.v_LRKSE[1, 2, 0, :, 3].tolist() == [8, 8, 8, 0, 0]


def test_unconditional_prompt_is_as_long() -> None:
    assert without_prompt([1, 5, 6, 2], 0) == [1, 0, 0, 2]


def test_guidance_mixes_guided_rows_and_passes_the_others_on() -> None:
    guidance = Guidance([1.0, 5.0, 2.0], CPU)
    conditional = torch.tensor([[1.0], [2.0], [3.0]])
    unconditional = torch.tensor([[1.0], [4.0]])
    assert guidance.mix(torch.cat((conditional, unconditional))).tolist() == [[1.0], [6.0], [2.0]]
    assert guidance.feed(torch.tensor([7, 8, 9])).tolist() == [7, 8, 9, 8, 9]
    alone = Guidance([1.0], CPU)
    assert alone.mix(conditional[:1]).tolist() == [[1.0]]
    assert alone.feed(torch.tensor([7])).tolist() == [7]


def test_guidance_moves_velocities_away_from_those_without_a_prompt() -> None:
    guidance = Guidance([3.0, 1.0], CPU)
    conditional, unconditional = torch.full((2, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), 1.5)
    mixed = guidance.extrapolate(torch.cat((conditional, unconditional)))
    assert mixed[0].unique().tolist() == [3 * 2.0 - 2 * 1.5]
    assert mixed[1].unique().tolist() == [2.0]
    half = guidance.extrapolate(torch.cat((conditional, unconditional)).bfloat16())
    assert half.dtype == torch.bfloat16
