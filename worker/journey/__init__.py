"""The steps that a command passes through, in order, from bytes to an answer.

A step does no I/O but on the transaction that it is given.
"""
