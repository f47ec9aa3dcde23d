"""Why a run came out as it did: the analyses on a finished search or study, and on a ticket that loses.

``material`` reads a run back, with its networks; ``report`` measures everything that needs no training and gives the
conjecture's verdict; ``deeper`` trains a little more for what does; ``why`` names what is wrong with a ticket;
``figures`` draws (matplotlib, an extra) and ``shown`` prints.
May import every room below ``cli``. ``tests/explain`` proves it.
"""
