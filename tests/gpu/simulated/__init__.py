"""A GPU that is none: a device of the type CUDA with the host's memory and arithmetic, for machines without one.

What runs on it is the program that would run on a GPU, with all that makes one different but its speed: tensors of two devices
do not mix, a graph is recorded without being computed and replays frozen numbers at frozen addresses, waiting for the device
while recording is an error, random numbers are the device's own. Launches and waits are counted, which no real GPU tells.

It needs a torch without CUDA, and a C++ compiler; a library is built once for each version of torch. It can't show the
rounding of a GPU's kernels, races between streams, nor what costs time; torch's compiler is left out. One process has it
from beginning to end, since torch can't forget a device.
"""
