"""A reader with the truth before them, who corrects as a hand would: a stopwatch."""

from benchmarks.simulated_reader.hand import Hand, Tally
from benchmarks.simulated_reader.reader import Correction, correct

__all__ = ["Correction", "Hand", "Tally", "correct"]
