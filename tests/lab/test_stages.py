"""Each digital stage: what it does, how it starts, and what it refuses."""

import pytest
import torch
from torch import Tensor

from lab.encoder import Encoder, Sizes
from lab.errors import ConfigError
from lab.network_config import (
    BrightnessFree,
    Linear,
    Permute,
    Repeat,
    Rescale,
    Series,
    Skip,
    Standardise,
    Windows,
)
from lab.stages import Seen, Stage, build_stages

SIZES = Sizes(passes=3, channels=12, classes=4)
# float32 sums over 500 samples: means and deviations are exact to about 1e-6
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(count: int = 500, seed: int = 1) -> Tensor:
    """Return h (samples, passes, channels) whose channels differ in mean and deviation."""
    shape = (SIZES.passes, SIZES.channels)
    mean = torch.rand(shape, generator=generator(seed))
    spread = 0.05 + torch.rand(shape, generator=generator(seed + 1))
    return mean + spread * torch.randn(count, *shape, generator=generator(seed + 2))


def one(config: object, seed: int = 0) -> Stage:
    (stage,) = build_stages([config], SIZES, generator(seed))
    return stage


def seen(h: Tensor) -> Seen:
    return Seen(torch.full_like(h, 10.0), torch.full_like(h, 20.0))


@torch.no_grad()
def started(config: object, h: Tensor) -> Stage:
    stage = one(config)
    stage.initialise(h, seen(h))
    return stage


@pytest.mark.parametrize(
    "config",
    [
        Rescale(),
        Rescale(start="signs"),
        BrightnessFree(),
        Standardise(),
        Standardise(by="pass"),
        Skip(),
        Skip(of="layer", trained=True),
        Permute(),
    ],
)
def test_a_stage_between_layers_keeps_the_shape_and_treats_samples_one_by_one(
    config: object,
) -> None:
    h = samples(20)
    stage = started(config, h)
    out = stage(h, seen(h))
    assert out.shape == h.shape
    torch.testing.assert_close(stage(h[3:5], seen(h[3:5])), out[3:5])


@pytest.mark.parametrize("config", [Windows(margin=2), Windows(weighted=True), Linear()])
def test_the_last_stage_gives_a_logit_for_each_class(config: object) -> None:
    h = samples(20)
    assert started(config, h)(h, seen(h)).shape == (20, SIZES.classes)


def test_rescaling_starts_every_channel_at_half_with_the_stated_spread() -> None:
    h = samples()
    out = started(Rescale(spread=0.15), h)(h, seen(h))
    torch.testing.assert_close(out.mean(0), torch.full((3, 12), 0.5), **CLOSE)
    torch.testing.assert_close(out.std(0), torch.full((3, 12), 0.15), **CLOSE)


def test_a_channel_that_does_not_move_is_not_blown_up() -> None:
    h = samples()
    h[:, 0, 0] = 0.3
    for config in (Rescale(), Standardise()):
        stage = started(config, h)
        moved = h.clone()
        moved[:, 0, 0] += 1e-4
        change = stage(moved, seen(h)) - stage(h, seen(h))
        assert float(change.detach().abs().max()) < 0.2


def test_rescaling_by_signs_differs_by_pass_and_has_no_shift() -> None:
    h = samples()
    stage = started(Rescale(start="signs", spread=0.5), h)
    assert not stage(torch.zeros_like(h), seen(h)).any()
    (factors,) = stage.parameters()
    assert factors.shape == (3, 12)
    assert 0.2 < float((factors > 0).float().mean()) < 0.8
    assert not torch.equal(factors[0], factors[1])
    many = one_of_size(Rescale(start="signs", spread=0.5), 4000)
    # |0.5 + 0.3 N|, either sign: its square is 0.5^2 + 0.3^2, within four standard errors
    assert float(many.square().mean()) == pytest.approx(0.34, abs=0.02)


def one_of_size(config: object, channels: int) -> Tensor:
    (stage,) = build_stages([config], Sizes(1, channels, 2), generator())
    (factors,) = stage.parameters()
    return factors.detach()


def test_brightness_drops_out() -> None:
    h = samples(20).abs() + 1.0
    stage = one(BrightnessFree())
    brighter = stage(3 * h, seen(h))
    # all but the small dark level that keeps black rows finite
    torch.testing.assert_close(brighter, stage(h, seen(h)), atol=0.05, rtol=0.02)
    assert torch.isfinite(stage(torch.zeros_like(h), seen(h))).all()


def test_standardising_by_channel_gives_each_channel_the_stated_spread() -> None:
    h = samples()
    out = started(Standardise(spread=0.8), h)(h, seen(h))
    torch.testing.assert_close(out.mean(0), torch.zeros(3, 12), **CLOSE)
    torch.testing.assert_close(out.std(0), torch.full((3, 12), 0.8), **CLOSE)


def test_standardising_by_pass_keeps_the_channels_relative_loudness() -> None:
    h = samples()
    out = started(Standardise(by="pass", spread=0.8), h)(h, seen(h))
    ratio = out.std(0) / h.std(0)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), **CLOSE)
    rms = out.std(0).square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.full((3,), 0.8), **CLOSE)


def test_standardising_has_nothing_to_train_and_is_kept_with_the_network() -> None:
    stage = started(Standardise(), samples())
    assert not list(stage.parameters())
    assert set(stage.state_dict()) == {"mean", "factor"}


@pytest.mark.parametrize(("of", "earlier"), [("input", 10.0), ("layer", 20.0)])
@pytest.mark.parametrize("trained", [False, True])
def test_a_skip_mixes_in_its_share_of_what_it_names(of: str, earlier: float, trained: bool) -> None:
    h = samples(5)
    stage = one(Skip(of=of, share=0.25, trained=trained))
    torch.testing.assert_close(stage(h, seen(h)), 0.75 * h + 0.25 * earlier)
    assert [p.numel() for p in stage.parameters()] == ([SIZES.passes] if trained else [])


def test_a_permutation_loses_no_channel_and_is_the_same_for_all_passes() -> None:
    h = torch.arange(12.0).expand(2, 3, 12)
    out = one(Permute())(h, seen(h))
    assert sorted(out[0, 0].tolist()) == list(range(12))
    assert out[0, 0].tolist() != list(range(12))
    assert (out == out[0, 0]).all()
    assert torch.equal(one(Permute())(h, seen(h)), out)
    assert not torch.equal(one(Permute(), seed=1)(h, seen(h)), out)


def test_windows_read_neighbouring_channels_without_the_margins() -> None:
    stage = one(Windows(margin=2))  # eight channels for four classes
    gradient = torch.autograd.functional.jacobian(
        lambda h: stage(h, seen(h))[0], torch.rand(1, 3, 12)
    )
    read = gradient[:, 0] != 0
    for number, channels in enumerate(read):
        expected = torch.zeros(12, dtype=torch.bool)
        expected[2 + 2 * number : 4 + 2 * number] = True
        assert (channels == expected).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_logits_of_windows_start_with_the_stated_gain(weighted: bool) -> None:
    h = samples()
    logits = started(Windows(margin=0, weighted=weighted, gain=2.0), h)(h, seen(h)).detach()
    torch.testing.assert_close(logits.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(logits.std(0), torch.full((4,), 2.0), atol=1e-3, rtol=0)


def test_weights_of_windows_are_one_for_each_channel_of_each_pass() -> None:
    shapes = {n: tuple(p.shape) for n, p in one(Windows(weighted=True)).named_parameters()}
    assert shapes == {"gain": (), "weight": (3, 12), "offset": (4,)}
    assert [n for n, _ in one(Windows()).named_parameters()] == ["gain"]


def test_more_classes_than_channels_between_the_margins_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.last: 4 classes do not fit into 2 channels"):
        one(Windows(margin=5))


def test_the_last_matrix_starts_at_zero_and_decays_as_stated() -> None:
    h = samples(5)
    stage = started(Linear(decay=0.05), h)
    assert not stage(h, seen(h)).any()
    ((matrix, decay),) = stage.decays()
    assert (tuple(matrix.shape), decay) == ((4, 36), 0.05)
    stage(h, seen(h)).square().sum().backward()  # and learns: its inputs are not zero
    assert matrix.grad is not None


def test_the_first_matrix_starts_with_the_stated_mean_and_spread() -> None:
    features = torch.rand(500, 7, generator=generator())
    encoder = Encoder(Linear(mean=0.4, spread=0.1, decay=0.5), SIZES, 7, generator())
    with torch.no_grad():
        encoder.initialise(features)
    h = encoder(features).detach()
    assert h.shape == (500, 3, 12)
    torch.testing.assert_close(h.mean(0), torch.full((3, 12), 0.4), **CLOSE)
    torch.testing.assert_close(h.std(0), torch.full((3, 12), 0.1), **CLOSE)
    assert not torch.equal(h[:, 0], h[:, 1])
    ((_, decay),) = encoder.decays()
    assert decay == 0.5


def test_a_feature_that_never_moves_leaves_the_first_matrix_finite() -> None:
    encoder = Encoder(Linear(), SIZES, 2, generator())
    with torch.no_grad():
        encoder.initialise(torch.ones(10, 2))
    assert torch.isfinite(encoder(torch.ones(10, 2))).all()


@pytest.mark.parametrize("config", [Repeat(), Series()])
def test_encoders_without_a_matrix_show_every_pass_the_same(config: Repeat | Series) -> None:
    encoder = Encoder(config, SIZES, 5, generator())
    h = encoder(torch.rand(4, 5, generator=generator()))
    assert h.shape == (4, 3, 12)
    assert torch.equal(h[:, 0], h[:, 2])
    assert not list(encoder.parameters())


def test_a_series_lies_around_zero_with_silence_after_it() -> None:
    encoder = Encoder(Series(), SIZES, 3, generator())
    h = encoder(torch.tensor([[0.0, 0.5, 1.0]]))
    assert h[0, 0].tolist() == [-0.5, 0.0, 0.5] + [0.0] * 9


@pytest.mark.parametrize("config", [Repeat(), Series()])
def test_more_features_than_channels_are_refused_before_anything_is_measured(
    config: Repeat | Series,
) -> None:
    with pytest.raises(ConfigError, match=r"network\.first: 13 features .* 12 channels"):
        Encoder(config, SIZES, 13, generator())
