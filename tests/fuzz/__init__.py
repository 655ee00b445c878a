"""Loaders fed with files that are nearly right.

    python -m tests.fuzz LOADER --count 100000 --seed 0

loaders.py lists what is fed, and with what; mutations.py changes bytes, structures.py what they
mean; worker.py loads one file after another and watches; __main__.py starts workers and counts.
corpus/ has the inputs that once failed, and tests/test_fuzz.py feeds them again.
"""
