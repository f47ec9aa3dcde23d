"""Find, prove and ship winning lottery tickets."""

__version__ = "0.1.0"
