"""Tests of fastlstm.interop; the files mirror src/fastlstm/interop/."""
