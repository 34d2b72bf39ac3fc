"""What is left open is chosen by system and task; what the user sets wins, key by key."""

import pytest
import torch
from torch import nn

from lab.config import TASKS, TrainConfig
from lab.errors import ConfigError
from lab.jobs.records import FitConfig
from lab.models import build_network
from lab.network_config import Linear, NetworkConfig
from lab.recipes import completed, completed_fit, is_possible

# x, theta and y of the three benches; features and classes of the tasks
SIZES = {"optics": (50, 50, 50), "circuit": (208, 208, 208), "plate": (196, 196, 196)}
DATA = {"vowels": (12, 7), "vowels12": (12, 12), "digits": (49, 10), "mnist": (196, 10)}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", SIZES)
def test_every_recipe_gives_a_config_that_holds(family: str, task: str, quick: bool) -> None:
    config = completed(TrainConfig(task=task, quick=quick), family)
    assert (config.task, config.quick) == (task, quick)
    # completed once more nothing changes: what a job keeps can be submitted again
    assert completed(config, family) == config


@pytest.mark.parametrize("task", DATA)
@pytest.mark.parametrize("family", SIZES)
def test_every_recipe_is_a_network_of_the_benchs_sizes(family: str, task: str) -> None:
    x_size, theta_size, y_size = SIZES[family]
    features, classes = DATA[task]
    config = completed(TrainConfig(task=task), family)
    asked: list[tuple[int, ...]] = []

    def measure(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        asked.append((*x.shape, theta.shape[1]))
        return torch.rand(len(x), y_size)

    network = build_network(
        measure,
        nn.Identity(),
        config.network,
        features=features,
        x_size=x_size,
        theta_size=theta_size,
        y_size=y_size,
        classes=classes,
        seed=0,
    )
    with torch.no_grad():
        assert network(torch.rand(2, features)).shape == (2, classes)
    assert sum(rows for rows, *_ in asked) == 2 * config.rows_a_sample
    assert {sizes for _, *sizes in map(tuple, asked) for sizes in [tuple(sizes)]} == {
        (x_size, theta_size)
    }


def test_vowels_on_the_optical_bench_are_the_configs_own_defaults() -> None:
    assert completed(TrainConfig(), "optics") == TrainConfig()


def test_a_system_of_ones_own_has_the_defaults() -> None:
    assert completed(TrainConfig(task="mnist"), "my_lab:Oscillators") == TrainConfig(task="mnist")


def test_what_the_user_sets_wins_key_by_key() -> None:
    recipe = completed(TrainConfig(task="mnist"), "circuit")
    config = completed(
        TrainConfig.model_validate(
            {"task": "mnist", "epochs": 3, "network": {"layers": 2}, "twin": {"rows": 50}}
        ),
        "circuit",
    )
    assert (config.epochs, config.network.layers, config.twin.rows) == (3, 2, 50)
    assert (config.twin.kind, config.batch) == (recipe.twin.kind, recipe.batch)
    assert config.network == recipe.network.model_copy(update={"layers": 2})


def test_a_value_that_is_the_default_wins_too_where_it_is_set() -> None:
    open_, set_ = TrainConfig(task="mnist"), TrainConfig(task="mnist", epochs=60)
    assert completed(open_, "optics").epochs != 60
    assert completed(set_, "optics").epochs == 60


def test_what_does_not_go_with_the_recipe_is_refused_by_its_key() -> None:
    deep = TrainConfig.model_validate({"task": "mnist", "network": {"layers": 3}})
    with pytest.raises(ConfigError, match=r"network: .*not 3 layers but 1"):
        completed(deep, "optics")


@pytest.mark.parametrize("task", DATA)
@pytest.mark.parametrize("family", SIZES)
def test_a_quick_run_takes_no_more_samples_than_there_are(family: str, task: str) -> None:
    config = completed(TrainConfig(task=task, quick=True), family)
    # of 60,000 and 10,000 images; the other data are fewer than a quick run's of these
    assert (config.train_images is not None) == (task == "mnist")


def test_a_stage_is_replaced_whole() -> None:
    network = NetworkConfig(first=Linear(mean=0.3))
    config = completed(TrainConfig(task="mnist", network=network), "optics")
    assert config.network.first == Linear(mean=0.3)  # not with the recipe's decay
    assert config.network.theta == "data"


def test_quick_is_smaller_and_gives_way_to_what_is_set() -> None:
    full = completed(TrainConfig(task="mnist"), "optics")
    quick = completed(TrainConfig(task="mnist", quick=True), "optics")
    assert full.train_images is full.test_images is None
    assert quick.train_images is not None
    assert quick.test_images is not None
    assert quick.network == full.network
    chosen = completed(TrainConfig(task="mnist", quick=True, train_images=500), "optics")
    assert (chosen.train_images, chosen.test_images) == (500, quick.test_images)
    vowels = completed(TrainConfig(quick=True), "optics")
    assert vowels.epochs < TrainConfig().epochs
    assert vowels.train_images is None  # there are few enough


@pytest.mark.parametrize("family", SIZES)
def test_a_twin_fitted_alone_is_the_one_that_training_would_fit(family: str) -> None:
    fit = completed_fit(FitConfig(), family)
    twin = completed(TrainConfig(), family).twin
    assert (fit.kind, fit.rows, fit.seed) == (twin.kind, twin.rows, twin.seed)
    assert completed_fit(FitConfig(kind="neural"), family).kind == "neural"


@pytest.mark.parametrize("control", ["physics_only", "digital_only"])
def test_physics_without_parameters_has_none_to_freeze(control: str) -> None:
    hybrid = completed(TrainConfig(task="mnist", control=control), "optics")
    assert not is_possible(hybrid)
    assert is_possible(hybrid.model_copy(update={"control": "identity"}))
    assert is_possible(completed(TrainConfig(control=control), "optics"))
