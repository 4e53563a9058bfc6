"""The processor of this machine."""

import os

import pytest

from mnist_fp8.core.processor import describe_processor


def test_processor_is_told_with_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 77)
    assert describe_processor().endswith(", 77 cores")
    assert len(describe_processor()) > len(", 77 cores")
