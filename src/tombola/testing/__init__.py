"""Public contract checks, for parts of your own: criterion, allocation, schedule, masks on a module, training routine.

Each raises ``AssertionError`` with a sentence that names what broke, and returns nothing where all holds. They need no
test framework. Our own parts pass the same checks: ``tests/contract``.
"""

from tombola.attach.conformance import Adapter, check_attach
from tombola.testing.allocation import check_allocation
from tombola.testing.criterion import check_criterion
from tombola.testing.schedule import check_schedule
from tombola.testing.training import check_train_fn

__all__ = ["Adapter", "check_allocation", "check_attach", "check_criterion", "check_schedule", "check_train_fn"]
