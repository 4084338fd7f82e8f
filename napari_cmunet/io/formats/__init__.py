"""Decoders of image formats: add one here and in ``io.images._DECODERS``.

All have the signature of ``decode_npy``; ``io.sniffing`` tells the format of a file.
"""
