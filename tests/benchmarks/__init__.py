"""What the worker costs, and what limits it: ``make bench``.

One command and one run measure everything beside each other, on a real Apache Kafka and a Postgres with its defaults:
``compare`` (how fast, and for how much CPU, beside what a user would write first and beside either server alone),
``latency`` (at fixed rates) and ``growth`` (how cost grows). ``make bench ARGS="--only compare --rounds 5"`` runs a
part of it. Tables go to the terminal, the figures to ``build/bench/bench.json``, a plot for each question beside them.

Rates come from the timestamps that the broker gave the answers (``LogAppendTime``), and count records; CPU comes from
the system's own accounts, for each process with its children.
"""
