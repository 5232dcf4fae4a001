"""Entries side by side: tables, Pareto plots, the HTML report. Knows results, needs no torch."""
