import pytest

from tombola.sparse.kernels.library import Kernels, available, kernels


@pytest.fixture(params=available() or ["none"], scope="session")
def level(request: pytest.FixtureRequest) -> Kernels:
    """The kernels of every level that runs here."""
    if not available():
        pytest.skip("the compiled kernels are not here: install a C++ compiler and reinstall")
    return kernels(request.param)
