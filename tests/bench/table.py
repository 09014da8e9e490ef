#!/usr/bin/env python3
"""table.py FIGURES SYSTEM… — medians as a table in Markdown, and what they are against passthrough, in brackets.

FIGURES: lines of system, measure, figure, unit, split by tabs; several lines of one kind are repeats."""
import statistics
import sys


def short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def main():
    systems = sys.argv[2:]
    figures, units = {}, {}
    with open(sys.argv[1]) as lines:
        for line in lines:
            system, measure, value, unit = line.rstrip("\n").split("\t")
            figures.setdefault(measure, {}).setdefault(system, []).append(float(value))
            units[measure] = unit
    print("| measure | " + " | ".join(systems) + " |")
    print("| --- |" + " ---: |" * len(systems))
    for measure, by_system in figures.items():
        base = by_system.get("passthrough")
        cells = []
        for system in systems:
            values = by_system.get(system)
            if not values:
                cells.append("–")
                continue
            cell = short(statistics.median(values))
            if base and not measure.startswith("memory") and system != "passthrough":
                cell += f" ({statistics.median(values) / statistics.median(base):.2f})"
            cells.append(cell)
        print(f"| {measure}, {units[measure]} | " + " | ".join(cells) + " |")


main()
