"""Target networks for pictures: none with BatchNorm, all ending in a linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from framp_private.errors import ModelError


def small_cnn(channels: int = 1, side: int = 8, n_classes: int = 10) -> nn.Module:
    """Three 3x3 convolutions (16, then 32 and 64 with stride 2) and a mean over places; 23,946 parameters on digits.

    Weights start at He's normal initialisation (arXiv 1502.01852) and biases at zero: with one scale rule for all
    layers, a global ranking by magnitude leaves a path through the network even at a budget of 1/64.
    """
    del side  # the mean takes any side
    module = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, n_classes),
    )
    for layer in module:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return module


class Normalise(nn.Module):
    """Each record for itself: flattened, centred, and scaled to one L2 norm; a constant record becomes zero."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self._norm = norm

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        scaled: Tensor = centred * (self._norm / centred.norm(dim=1, keepdim=True).clamp(min=1e-6))
        return scaled


def linear(channels: int = 1, side: int = 8, n_classes: int = 10) -> nn.Module:
    """Softmax regression on normalised pictures; 650 parameters on digits. Starts near zero.

    For training under noise: few parameters, and inputs of norm 10/3, so that the bias takes little of a clipped
    gradient.
    """
    classifier = nn.Linear(channels * side**2, n_classes)
    nn.init.normal_(classifier.weight, std=0.009 * (2 / (channels * side**2)) ** 0.5)
    nn.init.zeros_(classifier.bias)
    return nn.Sequential(Normalise(10 / 3), classifier)


def perceptron(channels: int = 1, side: int = 8, n_classes: int = 10, hidden: int = 16) -> nn.Module:
    """One hidden layer of 16 on the flattened picture; 1,210 parameters on digits.

    For training under noise: the noise on a gradient grows with the number of weights, what can be learned does not.
    """
    module = nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))
    for layer in module:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return module


def lenet(channels: int = 3, side: int = 32, n_classes: int = 10) -> nn.Module:
    """The LeNet of pFedHN (arXiv 2103.04628): 5x5 convolutions 16 and 32, 120, 84; 121,182 parameters on CIFAR-10."""
    reduced = ((side - 4) // 2 - 4) // 2
    if reduced < 1:
        raise ModelError(f"side={side} is too small for LeNet's two 5x5 convolutions: use at least 16, or network=cnn")
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * reduced**2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, n_classes),
    )


class _Block(nn.Module):
    """Two 3x3 convolutions with GroupNorm and a shortcut (He et al. 2016, section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(32, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.GroupNorm(32, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(32, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.main(x) + self.shortcut(x))


def resnet18(channels: int = 3, side: int = 32, n_classes: int = 10) -> nn.Module:
    """ResNet-18 with a CIFAR stem (3x3, no pool) and GroupNorm(32); 11,164,362 maskable parameters on CIFAR-10."""
    del side  # adaptive pooling takes any side
    blocks: list[nn.Module] = []
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        blocks += [_Block(inputs, outputs, stride), _Block(outputs, outputs, 1)]
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, 1, 1, bias=False),
        nn.GroupNorm(32, 64),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(512, n_classes),
    )
