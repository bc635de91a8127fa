"""What TensorFlow may do with the machine."""

from __future__ import annotations


def prepare_devices(*, deterministic: bool) -> None:
    """Let memory of GPUs grow with what is used; on request allow only operations that repeat to the last bit.

    The latter holds for the rest of the process, since TensorFlow knows no way back.
    """
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(device, True)
        except RuntimeError:  # in use already, as whoever uses it has set it
            continue
    if deterministic:
        tf.config.experimental.enable_op_determinism()
