"""Query, compare, examine and clean up a lake: query, diff, doctor, vacuum."""
