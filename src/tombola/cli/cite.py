"""``tombola cite``: the papers to cite, as BibTeX."""

import tombola
from tombola.citations import citations


def cite(*topics: str) -> None:
    """Print the BibTeX of tombola and of the papers behind a method.

    Args:
        topics: Strategies, criteria, allocations, rewinds, controls or data sets, such as imp or erk; none for
            everything that a default search rests on.
    """
    print(citations(*topics, version=tombola.__version__))
