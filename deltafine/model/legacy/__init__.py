"""Models in HDF5 files of Keras 1 and 2."""
