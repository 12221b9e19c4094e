"""Tests of storage/: contract.py is one suite for every engine; the stores are tested over the engine in a dict."""
