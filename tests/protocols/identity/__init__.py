"""Tests of protocols/identity."""
