"""Measurements: speed over the commits (suite), beside other libraries (peers), and quality."""
