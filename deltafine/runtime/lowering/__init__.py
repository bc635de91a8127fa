"""From a Keras model to a plan of plain operations: one file per kind of layer."""
