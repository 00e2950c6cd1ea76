"""The cost of the worker, and its limits: ``make bench``.

One command and one run measure everything side by side, on a real Apache Kafka and a Postgres with its defaults:
``compare`` (rate and CPU, beside a user's first version and beside either server alone), ``latency`` (at fixed rates)
and ``growth`` (the growth of cost). ``make bench ARGS="--only compare --rounds 5"`` runs a part of it. Tables go to the
terminal, the figures to ``build/bench/bench.json``, a plot for each question beside them.

Rates come from the timestamps that the broker gave the answers (``LogAppendTime``), and count records; CPU comes from
the system's own accounts, for each process with its children.
"""
