"""Tests of protocols/join."""
