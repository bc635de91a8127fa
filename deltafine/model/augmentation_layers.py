"""Augmentation layers inside a model: random while it trains, nothing when it is used."""

from __future__ import annotations

import keras

layers = keras.layers
# RandomCrop is not among them: it also crops when the model is used.
AUGMENTATIONS = (
    layers.AugMix,
    layers.CutMix,
    layers.MixUp,
    layers.RandAugment,
    layers.RandomBrightness,
    layers.RandomColorDegeneration,
    layers.RandomColorJitter,
    layers.RandomContrast,
    layers.RandomElasticTransform,
    layers.RandomErasing,
    layers.RandomFlip,
    layers.RandomGaussianBlur,
    layers.RandomGrayscale,
    layers.RandomHue,
    layers.RandomInvert,
    layers.RandomPerspective,
    layers.RandomPosterization,
    layers.RandomRotation,
    layers.RandomSaturation,
    layers.RandomSharpness,
    layers.RandomShear,
    layers.RandomTranslation,
    layers.RandomZoom,
)


def is_augmentation(layer: keras.layers.Layer) -> bool:
    """Whether the layer only varies pictures in training.

    A clip model leaves such layers out: with time folded into the batch they would vary each frame of a clip
    differently, and nothing would stand still.
    """
    return isinstance(layer, AUGMENTATIONS)
