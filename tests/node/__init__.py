"""Tests of the roof, under the names of what they test. transport/manners.py is one contract for every transport."""
