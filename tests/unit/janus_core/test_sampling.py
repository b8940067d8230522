from __future__ import annotations

import pytest
import torch

from janus_core.engine.sampling import Picker, Sampling, draw_stream, keep_likeliest

CPU = torch.device("cpu")
PROBABILITIES = torch.tensor([0.1, 0.5, 0.05, 0.35])
LOGITS = PROBABILITIES.log()


def pick(sampling: Sampling, uniform: float, logits: torch.Tensor = LOGITS) -> int:
    picker = Picker([sampling], CPU)
    return int(picker(logits[None], torch.tensor([uniform], dtype=torch.float64)))


def sampling(temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0) -> Sampling:
    return Sampling(temperature, top_p, top_k, seed)


def counts(settings: Sampling, draws: int = 20_000) -> torch.Tensor:
    picker = Picker([settings] * draws, CPU)
    tokens = picker(LOGITS.expand(draws, -1), draw_stream(settings, draws))
    return torch.bincount(tokens, minlength=4) / draws


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-9])
def test_no_temperature_takes_the_likeliest(temperature: float) -> None:
    assert pick(sampling(temperature=temperature), 0.999) == 1


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 0), (0.0999, 0), (0.101, 1), (0.599, 1), (0.62, 2), (0.999, 3)])
def test_a_token_is_where_the_running_sum_passes_the_number(uniform: float, token: int) -> None:
    assert pick(sampling(), uniform) == token


def test_frequencies_follow_the_probabilities_and_the_temperature() -> None:
    torch.testing.assert_close(counts(sampling(seed=3)), PROBABILITIES, rtol=0, atol=0.015)
    cooler = torch.softmax(LOGITS / 0.5, -1)
    torch.testing.assert_close(counts(sampling(temperature=0.5)), cooler, rtol=0, atol=0.015)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (sampling(top_k=1), [1]),
        (sampling(top_k=3), [0, 1, 3]),
        (sampling(top_k=99), [0, 1, 2, 3]),
        (sampling(top_p=0.01), [1]),
        (sampling(top_p=0.49), [1]),
        (sampling(top_p=0.51), [1, 3]),
        (sampling(top_p=0.96), [0, 1, 2, 3]),
        (sampling(top_p=0.6, top_k=2), [1, 3]),
        (sampling(top_p=0.55, top_k=2), [1]),
    ],
)
def test_top_k_and_then_top_p(settings: Sampling, kept: list[int]) -> None:
    """The last two: of .5 and .35 left by k, the first is .588 of the whole."""
    wanted = torch.zeros(4)
    wanted[kept] = PROBABILITIES[kept]
    torch.testing.assert_close(counts(settings), wanted / wanted.sum(), rtol=0, atol=0.015)


def test_filters_agree_with_transformers() -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(50, 200, generator=torch.Generator().manual_seed(0)) * 3
    for top_k, top_p in ((7, 0.8), (200, 0.5), (20, 1.0)):
        theirs = TopKLogitsWarper(top_k)(torch.zeros(50, 1, dtype=torch.long), logits)
        theirs = TopPLogitsWarper(top_p)(torch.zeros(50, 1, dtype=torch.long), theirs) if top_p < 1 else theirs
        ranked, order = torch.softmax(logits.double(), -1).sort(dim=-1, descending=True, stable=True)
        ours = keep_likeliest(ranked, torch.full((50, 1), top_k), torch.full((50, 1), top_p, dtype=torch.float64))
        assert torch.equal(torch.isfinite(theirs), torch.zeros_like(ours).scatter(1, order, ours) > 0)


def test_streams_depend_on_the_seed_alone_and_begin_alike() -> None:
    assert torch.equal(draw_stream(sampling(seed=5), 10), draw_stream(sampling(seed=5, temperature=0.3), 40)[:10])
    assert not torch.equal(draw_stream(sampling(seed=5), 10), draw_stream(sampling(seed=6), 10))


def test_rows_of_all_kinds_side_by_side_are_as_alone() -> None:
    rows = [sampling(0.0), sampling(), sampling(top_k=2), sampling(0.7, 0.9), sampling(2.0)]
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    uniforms = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = Picker(rows, CPU)(logits, uniforms).tolist()
    assert together == [
        pick(row, float(u), row_logits) for row, u, row_logits in zip(rows, uniforms, logits, strict=True)
    ]
