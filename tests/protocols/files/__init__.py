"""Tests of protocols/files: records.py makes what they need; the rest is one file per module."""
