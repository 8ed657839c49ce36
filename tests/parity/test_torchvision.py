"""Beside torchvision: its classifiers made convolutional, and its fcn_resnet50 and fcn_resnet101."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from atrous.models import SegmentationModel, create_model
from atrous.models.surgery.output_stride import convolutionalize

COUNTS = {"resnet50": 35_322_218, "resnet101": 54_314_346}  # torchvision's, with the auxiliary head


def randomise(net: nn.Module) -> nn.Module:
    """Weights of a sensible size, and statistics as of a trained network: those it is made with would hide mistakes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return net.eval()


def away(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def take(ours: SegmentationModel, theirs: nn.Module) -> None:
    """Load torchvision's tensors under our names, those of an auxiliary head only if there is one."""
    weights = {key.replace("backbone.", "backbone.net.", 1): value for key, value in theirs.state_dict().items()}
    ours.load_state_dict({key: weights[key] for key in ours.state_dict()})


@pytest.mark.parametrize("backbone", COUNTS)
def test_parameter_counts(backbone: str) -> None:
    with torch.device("meta"):
        model = create_model("fcn", backbone=backbone, num_classes=21, aux=True)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[backbone]


@pytest.mark.parametrize("backbone", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_fcn_resnet_takes_its_state_dict_and_gives_its_scores(backbone: str) -> None:
    build = getattr(torchvision.models.segmentation, f"fcn_{backbone}")
    theirs = randomise(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    ours = create_model("fcn", backbone=backbone, num_classes=21, aux=True).eval()
    take(ours, theirs)
    x = torch.randn(2, 3, 72, 97)
    with torch.no_grad():
        features, expected = theirs.backbone(x), theirs(x)
        main, aux = ours.outputs(x)
        assert away(main.logits, theirs.classifier(features["out"])) < 1e-4
        assert away(aux.logits, theirs.aux_classifier(features["aux"])) < 1e-4
        # The same scores resized as torchvision does are its result; ours are sampled where the features sit.
        assert away(F.interpolate(main.logits, (72, 97), mode="bilinear"), expected["out"]) < 1e-4
        assert away(ours(x), expected["out"]) > 0.01
        plain = create_model("fcn", backbone=backbone, num_classes=21).eval()
        take(plain, theirs)  # leaves the auxiliary head out
        assert torch.equal(plain(x), ours(x))
    assert plain.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg16_bn", "googlenet", "squeezenet1_1", "densenet121"])
def test_a_sliding_classifier_gives_the_classifiers_logits(name: str) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    net = randomise(torchvision.models.get_model(name, weights=None, **options))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        logits, scores = net(x), convolutionalize(net)(x)
    pooled = name not in ("alexnet", "vgg11", "vgg16_bn")
    assert (scores.shape[2:] != (1, 1)) == pooled
    assert away(scores.mean((2, 3)), logits) < 1e-4
