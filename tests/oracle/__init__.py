"""An independent NumPy float64 implementation of every algorithm, against which ``pfa_cli.algorithms`` is tested.

It is written from the text (the paper's equations; Akrout et al. 2019 for KP and WM, Max et al. 2022 for PAL), in
plain loops, without torch and without looking at the implementation. Data flows one way:
``geometry`` (what one weighted layer computes) → ``feedback`` (how its error travels back) → ``network`` (the layers,
forward and backward) → ``training`` (one step of SGD); ``architectures`` and ``cases`` are the two tables that drive the
tests, and ``comparison`` is what these share.
"""
