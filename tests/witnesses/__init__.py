"""What PyTorch computes for random LSTMs, kept so that the tests need no PyTorch."""
