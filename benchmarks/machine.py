"""What a result was measured on."""

import platform
from pathlib import Path

import torch


def processor(device: str = "cpu") -> str:
    """Name the processor, or the GPU of a CUDA device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
