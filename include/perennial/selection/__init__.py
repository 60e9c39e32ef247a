"""Which rows are worth training on, and beside which: pure functions over frozen rows, no I/O, no clock, no global
randomness. Nothing is imported here: fleet files are read at every parse of a DAG and need ``sent`` alone, never numpy.
"""
