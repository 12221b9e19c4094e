"""Tests of protocols/auth."""
