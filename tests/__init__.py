"""Tests of fastlstm; the files mirror src/fastlstm/."""
