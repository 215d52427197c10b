"""The images to classify: scikit-learn's digits, which are embedded, or CIFAR-10."""

from collections.abc import Callable

from experiments.datasets import Images, cifar10, digits

SOURCES: dict[str, Callable[..., Images]] = {"digits": digits, "cifar10": cifar10}

__all__ = ["SOURCES", "Images", "cifar10", "digits"]
