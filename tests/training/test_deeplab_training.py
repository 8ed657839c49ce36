"""Training as DeepLab v1 and v2 were: losses at the network's positions, rates, parts that stay, and their recipes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atrous.data.augment import Augmentation
from atrous.data.dataset import Sample
from atrous.grid import Grid
from atrous.models import create_model, load
from atrous.models.base import Output
from atrous.training.freezing import freeze
from atrous.training.objective import SegmentationLoss, labels_at
from atrous.training.optimizer import build_optimizer
from atrous.training.recipe import RecipeError, check_recipe
from atrous.training.recipe_file import load_recipe
from atrous.training.stages import train

from ..conftest import MakeRecipe

NETWORK = SegmentationLoss(resolution="network")


def score_map(size: int, stride: float, name: str = "main", offset: float = 0) -> Output:
    return Output(name, torch.randn(2, 4, size, size), Grid(stride, offset))


class TestLabelsAtTheNetworksPositions:
    def test_at_stride_8_they_are_every_eighth(self) -> None:
        labels = torch.randint(0, 21, (2, 321, 321), dtype=torch.uint8)
        assert torch.equal(labels_at(score_map(41, 8), labels), labels[:, ::8, ::8])
        assert torch.equal(labels_at(score_map(21, 16), labels), labels[:, ::16, ::16])

    def test_between_pixels_they_are_the_nearest(self) -> None:
        labels = torch.arange(20).expand(1, 20, 20)
        assert labels_at(score_map(4, 5, offset=1.25), labels)[0, 0].tolist() == [1, 6, 11, 16]
        assert labels_at(score_map(3, 16 / 3), labels)[0, 0].tolist() == [0, 5, 11]

    def test_beside_the_image_there_are_none(self) -> None:
        labels = torch.ones(1, 10, 18, dtype=torch.long)
        found = labels_at(Output("main", torch.zeros(1, 1, 3, 4), Grid(8, -8)), labels)
        assert found[0].tolist() == [[255] * 4, [255, 1, 1, 1], [255, 1, 1, 1]]


class TestTheLossAtNetworkResolution:
    def test_is_caffes_averaged_one(self) -> None:
        output = score_map(9, 8)
        labels = torch.randint(0, 4, (2, 65, 65), dtype=torch.uint8)
        labels[0, :30] = 255
        total, size = NETWORK([output], {"main": labels})
        expected = F.cross_entropy(output.logits, labels[:, ::8, ::8].long(), ignore_index=255)
        torch.testing.assert_close(total / size, expected)
        assert size == (labels[:, ::8, ::8] != 255).sum()

    def test_each_scale_is_averaged_over_its_own_map(self) -> None:
        outputs = [score_map(9, 8), score_map(9, 8, "scale_1"), score_map(5, 16, "scale_0.5")]
        labels = torch.randint(0, 4, (2, 65, 65))
        labels[1, 20:, 10:] = 255
        total, size = NETWORK(outputs, {"main": labels})
        truths = [labels[:, ::8, ::8], labels[:, ::8, ::8], labels[:, ::16, ::16]]
        means = [F.cross_entropy(o.logits, t, ignore_index=255) for o, t in zip(outputs, truths, strict=True)]
        torch.testing.assert_close(total / size, sum(means))

    def test_is_zero_where_everything_is_ignored(self) -> None:
        outputs = [score_map(9, 8), score_map(5, 16, "scale_0.5")]
        for output in outputs:
            output.logits.requires_grad_()
        total, size = NETWORK(outputs, {"main": torch.full((2, 65, 65), 255)})
        total.backward()
        assert total.item() == size.item() == 0
        assert not any(output.logits.grad.any() for output in outputs)  # type: ignore[union-attr]

    def test_a_coarse_map_may_see_none_of_few_labels(self) -> None:
        labels = torch.full((2, 65, 65), 255)
        labels[:, 8, 8] = 1
        outputs = [score_map(9, 8), score_map(5, 16, "scale_0.5")]
        total, size = NETWORK(outputs, {"main": labels})
        assert size == 2
        torch.testing.assert_close(total / size, F.cross_entropy(outputs[0].logits[..., 1, 1], torch.tensor([1, 1])))

    def test_hard_pixels_are_the_images(self, make_recipe: MakeRecipe) -> None:
        with pytest.raises(RecipeError, match="hard pixels"):
            make_recipe(loss__resolution="network", loss__hard_share=0.5)


def test_scales_may_be_drawn_from_a_set() -> None:
    sample = Sample(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8), "a")
    augmentation = Augmentation(crop=None, scale=(3.0, 3.0), scale_set=[0.5, 0.75, 1.5])
    random = np.random.default_rng(0)
    sides = [augmentation(sample, random).mask.shape[0] for _ in range(60)]
    assert set(sides) == {20, 30, 60}
    assert min(sides.count(side) for side in set(sides)) > 10
    with pytest.raises(RecipeError, match=r"augment\.scale_set"):
        check_recipe({"data": {"train": "folder:x"}, "augment": {"scale_set": [1.0, 0.0]}}, "test")


def test_the_last_layer_learns_ten_and_twenty_times_as_fast(make_recipe: MakeRecipe, thin: None) -> None:
    recipe = make_recipe(optimizer__lr=0.01, optimizer__backbone_lr=0.001, optimizer__bias_factor=2)
    model = create_model("deeplab_largefov", backbone="vgg11", num_classes=3, width=16)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(recipe, model).param_groups
    rates = {names[id(p)]: group["base_lr"] for group in groups for p in group["params"]}
    assert {rates.pop(f"fc8.{kind}"): kind for kind in ("weight", "bias")} == {0.01: "weight", 0.02: "bias"}
    assert {rate for name, rate in rates.items() if name.endswith("weight")} == {0.001}
    assert {rate for name, rate in rates.items() if name.endswith("bias")} == {0.002}
    assert {names[id(p)].rpartition(".")[2] for g in groups if not g["weight_decay"] for p in g["params"]} == {"bias"}


def test_all_but_named_parts_can_stay_as_they_came(thin: None) -> None:
    model = create_model("deeplab_msc_largefov", backbone="vgg11_bn", num_classes=3, width=16)
    frozen = freeze(model, 0, norms_of=None, only=["msc.", "fc8"])
    learning = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"msc", "fc8"}
    assert model.backbone.net.get_submodule("bn1_1") in frozen
    with pytest.raises(RecipeError, match=r"training\.only: .* begins with 'fc9'; parts: backbone, fc6, fc7, fc8, msc"):
        freeze(model, 0, norms_of=None, only=["fc9"])


ASPP = {
    "model__name": "deeplab_aspp",
    "model__options": {"rates": [1, 2], "scales": [1, 0.5]},
    "loss__resolution": "network",
    "augment__scale_set": [1.0],
    "augment__scale": [1.0, 1.0],
}


def test_multi_scale_aspp_learns_as_published(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        **ASPP,
        optimizer__lr=0.02,
        optimizer__backbone_lr=0.01,
        optimizer__bias_factor=2,
        training__steps=30,
        data__val_split="val",
        training__validate_every=100,
    )
    losses = []
    result = train(recipe, tmp_path / "run", on_step=lambda p: losses.append(p.loss))
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert result.mean_iou is not None
    assert result.mean_iou > 0.3


def test_msc_learns_over_a_network_that_stays(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    options = {"model__name": "deeplab_largefov", "model__options": {"rate": 2}, "training__steps": 2}
    first = train(make_recipe(**options), tmp_path / "simple").last
    options |= {"model__name": "deeplab_msc_largefov", "training__only": ["msc."]}
    second = train(make_recipe(**options, model__start_from=str(first)), tmp_path / "msc").last
    before, after = load(first).state_dict(), load(second).state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    fresh = create_model("deeplab_msc_largefov", backbone="test_resnet", num_classes=4, rate=2).state_dict()
    assert fresh.keys() == after.keys()


PUBLISHED = {
    "voc_deeplab_largefov_vgg16": 20_505_429,
    "voc_deeplab_aspp_vgg16": 37_877_652,
    "voc_deeplab_aspp_resnet101": 44_048_532,
    "voc_attention_largefov_vgg16": 20_505_429 + 14_157_827,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_build_the_published_networks(name: str) -> None:
    recipe = load_recipe(name)
    section = recipe.model
    with torch.device("meta"):
        model = create_model(section.name, backbone=section.backbone, num_classes=21, **section.options)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]
    assert recipe.loss.resolution == "network"
    assert recipe.augment.crop == 321
    assert recipe.optimizer.lr == pytest.approx(10 * (recipe.optimizer.backbone_lr or 0))


def test_the_policy_study_is_a_matter_of_settings() -> None:
    for policy, batch, steps in (("step", 30, 6000), ("poly", 30, 10000), ("poly", 10, 20000)):
        recipe = load_recipe(
            "voc_deeplab_largefov_vgg16",
            [f"schedule.policy={policy}", f"training.batch_size={batch}", f"training.steps={steps}"],
        )
        assert (recipe.schedule.policy, recipe.training.batch_size, recipe.training.steps) == (policy, batch, steps)


@pytest.mark.slow
@pytest.mark.shared
def test_vgg_16_learns_camvid_from_random_weights(shared: Path, tmp_path: Path) -> None:
    settings = {
        "data.train": f"camvid:{shared}/data/CamVid",
        "data.train_split": "train",
        "data.val_split": "none",
        "data.workers": 0,
        "model.pretrained": "false",
        "augment.crop": 65,
        "optimizer.name": "adamw",
        "optimizer.lr": 3e-4,
        "optimizer.backbone_lr": 3e-4,
        "optimizer.bias_factor": 1,
        "optimizer.clip_norm": 5,
        "schedule.policy": "poly",
        "schedule.warmup": 10,
        "training.steps": 30,
        "training.batch_size": 4,
    }
    recipe = load_recipe("voc_deeplab_largefov_vgg16", [f"{key}={value}" for key, value in settings.items()])
    losses: list[float] = []
    train(recipe, tmp_path / "run", on_step=lambda p: losses.append(p.loss))
    assert sum(losses[-6:]) / 6 < 0.85 * sum(losses[:3]) / 3
