"""Update rules: how one batch becomes a gradient, by backpropagation or without it.

A rule knows a network, its loss and nothing of devices: what the layers measure with and what
differentiates them is the method's (`lab.methods`).
"""
