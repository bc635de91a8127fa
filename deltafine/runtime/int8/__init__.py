"""The plan in 8-bit integers: how it is made of one in floating point, and the engines that run it."""
