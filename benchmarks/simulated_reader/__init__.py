"""Simulated annotator: corrects masks as a hand would, and takes the time."""

from benchmarks.simulated_reader.hand import Hand, Tally
from benchmarks.simulated_reader.reader import Action, Correction, correct

__all__ = ["Action", "Correction", "Hand", "Tally", "correct"]
