"""Query, compare, examine and clean up a lake.

Each module is a command: query, diff, doctor, vacuum. For query, judge and words decide what a
statement may hold, by the lists in allowed. For doctor, files and deep compare with what runs
recorded; a fault is one line of its output.
"""
