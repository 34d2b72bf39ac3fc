"""Digital twins: differentiable models of the physical systems, in torch.

A twin is an `nn.Module` with `forward(x, theta) -> y` in normalised units (0..1 of the declared
ranges), batched. May import torch and numpy; never drivers, lab or server: what a twin knows of an
instrument it learnt from a textbook or from measured data.
"""
