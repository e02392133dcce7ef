"""For all tests."""

# Folders may each have one; --doctest-modules would collect them as modules, whose names then clash.
collect_ignore_glob = ["*conftest.py"]
