"""The shape that an answer is given, and whether it fits its schema. All of it is pure.

`think`, `forms` and `cutting` read an answer's text as it comes; what they make of it does not depend on where it was
cut. `schemas` and `xml` check what came of it. `shape` puts together what a policy asks for.
"""
