"""The simulated vendors: what each one reads, refuses and answers, in every dialect that they speak.

`asking` and `playing` know no wire format: a request as a simulated model sees it, and what it says to that. One
module for each format reads requests as strictly as its vendor does and writes whole answers and streams.
They are written straight from the vendors' public API descriptions and not with the house's own dialect modules,
so that a slip there meets an independent witness instead of its own mirror image. `wires` is the table of them.
"""
