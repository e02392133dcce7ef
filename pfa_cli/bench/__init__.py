"""What a training step costs: every algorithm against BP, BP against plain torch and against its matrix products.

`benchmarks/README.md` says how to read the numbers. One way through: command → timing, growth → report.
"""
