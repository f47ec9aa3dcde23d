"""Strong tickets: subnetworks of random networks that do the job without any training, learned or constructed.

May import the trainers, networks, data and tickets below it; it knows no search. Proof: tests/strong.
"""
