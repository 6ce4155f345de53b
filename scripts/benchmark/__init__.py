"""The benchmark: what a call costs by each way through TokenHub, beside stock mitmdump in the same run.

`traffic` holds the bytes, `upstream` answers them, `load` sends them and checks every answer, `subjects` starts
and stops what is measured, `processes` reads CPU time, `figures` makes ratios of it, `report` shows them.
`sampling` and `profiles` say where the time of one lane goes. `pairs` is apart: the translation of streams alone.
"""
