"""Write small models with Keras 2 (the package ``tf_keras``) as ``.h5`` files, with an input and its output.

``python tests/model/legacy/write_fixtures.py`` needs ``pip install tf_keras``; the tests only read the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

HERE = Path(__file__).parent
SHAPE = (8, 8, 3)


def sequential():
    return keras.Sequential(
        [
            layers.Conv2D(3, 3, activation="relu", input_shape=SHAPE),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )


def functional(body):
    inputs = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(body(inputs))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def residual(x):
    x = layers.Conv2D(4, 3, padding="same", name="block1/conv")(x)
    y = layers.BatchNormalization(name="block1/norm")(x)
    y = layers.ReLU(6.0, name="block1/relu")(y)
    return layers.Concatenate()([layers.Add(name="block1/add")([x, y]), layers.Multiply()([x, y])])


def depthwise(x):
    x = layers.ZeroPadding2D()(x)
    x = layers.DepthwiseConv2D(3, use_bias=False)(x)
    return layers.LeakyReLU(0.2)(x)


def separable(x):
    return layers.PReLU(shared_axes=[1, 2])(layers.SeparableConv2D(4, 3, activation="relu")(x))


def transposed(x):
    return layers.ELU()(layers.UpSampling2D()(layers.Conv2DTranspose(3, 3, strides=2)(x)))


def nested(x):
    inner_inputs = keras.Input(SHAPE)
    y = layers.BatchNormalization(axis=[3])(layers.Conv2D(3, 3, activation="relu")(inner_inputs))
    inner = keras.Model(inner_inputs, y, name="backbone")
    stack = keras.Sequential([layers.DepthwiseConv2D(3, activation="relu", input_shape=(6, 6, 3))], name="stack")
    return stack(inner(x))


def merged(x):
    a, b = layers.Conv2D(3, 3)(x), layers.Conv2D(3, 3)(x)
    parts = [layers.Subtract()([a, b]), layers.Average()([a, b]), layers.Maximum()([a, b]), layers.Minimum()([a, b])]
    return layers.Concatenate(axis=-1)(parts)


def operators(x):
    """What MobileNetV3 and the preprocess_input of three families leave behind."""
    x = x / 127.5
    x = x - 1.0
    x = layers.Conv2D(4, 3)(x)
    gate = layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)
    x = layers.Multiply()([x, gate])
    x = tf.nn.relu(-x) + tf.math.sigmoid(x) * x
    return x[..., ::-1]


def reduced(x):
    x = layers.Conv2D(4, 3, activation="swish")(x)
    pooled = tf.reduce_mean(x, [1, 2], keepdims=True)
    x = tf.nn.relu6(x) * tf.nn.sigmoid(pooled)
    return tf.concat([x, tf.maximum(x, 0.1), tf.square(x)], axis=-1)


def shared(x):
    conv = layers.Conv2D(3, 3, padding="same", activation="relu")
    return conv(conv(conv(x)))


def recurrent():
    inputs = keras.Input((5, 4))
    x = layers.LSTM(3, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GRU(3)(x)))


def time_distributed():
    inputs = keras.Input((4, *SHAPE))
    frame = keras.Sequential(
        [layers.Conv2D(2, 3, activation="relu", input_shape=SHAPE), layers.GlobalAveragePooling2D()]
    )
    x = layers.TimeDistributed(frame)(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(3)(x)))


def preprocessing(x):
    x = layers.Rescaling(1 / 255.0)(layers.RandomFlip("horizontal")(x))
    return layers.Activation("relu")(layers.LayerNormalization()(layers.Conv2D(4, 3)(x)))


def caffe_style(x):
    return layers.Conv2D(3, 3, activation="relu")(keras.applications.resnet.preprocess_input(x))


MODELS = {
    "sequential": sequential,
    "recurrent": recurrent,
    "time_distributed": time_distributed,
    **{
        body.__name__: lambda body=body: functional(body)
        for body in (
            residual, depthwise, separable, transposed, nested, merged, operators, reduced, shared, preprocessing,
            caffe_style,
        )
    },
}  # fmt: skip


def main() -> None:
    for name, make in MODELS.items():
        keras.backend.clear_session()
        model, generator = make(), np.random.default_rng(0)
        for weight in model.weights:
            low, high = (0.5, 1.5) if "variance" in weight.name else (-0.5, 0.5)
            weight.assign(generator.uniform(low, high, weight.shape))
        inputs = generator.uniform(-1, 1, (2, *model.input_shape[1:])).astype("float32")
        model.save(HERE / f"{name}.h5", include_optimizer=False)
        np.savez_compressed(HERE / f"{name}.npz", inputs=inputs, outputs=model.predict(inputs, verbose=0))


if __name__ == "__main__":
    main()
