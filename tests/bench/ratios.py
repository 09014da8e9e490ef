#!/usr/bin/env python3
"""usage: ratios.py FILE BASE — medians of lines "system<tab>measure<tab>figure<tab>unit" as a table; in brackets their ratio to
BASE's."""
import statistics
import sys
from collections import defaultdict

figures, measures, systems = defaultdict(list), [], []
for line in open(sys.argv[1]):
    system, name, value, unit = line.rstrip("\n").split("\t")
    if (name, unit) not in measures:
        measures.append((name, unit))
    if system not in systems:
        systems.append(system)
    figures[system, name].append(float(value))
base = sys.argv[2]
print("| measure | " + " | ".join(systems) + " |")
print("| --- |" + " ---: |" * len(systems))
for name, unit in measures:
    cells = []
    for system in systems:
        if not figures[system, name]:
            cells.append("")
            continue
        value = statistics.median(figures[system, name])
        ratio = f" ({value / statistics.median(figures[base, name]):.2f})" if system != base and figures[base, name] else ""
        cells.append(f"{value:,.{1 if value < 100 else 0}f}" + ratio)
    print(f"| {name}, {unit} | " + " | ".join(cells) + " |")
