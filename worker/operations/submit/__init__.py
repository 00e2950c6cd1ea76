"""Submit a file of commands and wait for every answer: resumable at any point, by ids that follow from the file.

``lines`` reads the file, ``login`` has the token, ``journal`` remembers, ``flight`` knows what is under way and what
was lost, ``sending`` and ``answers`` talk to Kafka, ``run`` puts them together, ``report`` says what came of it.
"""
