"""The pytest plugin of the suite: run kinds, needs, expectations and what a run says of itself.

The suite's own conftest.py loads `mnist_fp8.plugin.hooks`. It is no entry point of pytest: the suites of others, in an
environment where this package is installed, never meet it.
"""
