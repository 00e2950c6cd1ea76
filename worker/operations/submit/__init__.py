"""Submit a file of commands and wait for every answer: resumable at any point, by ids that follow from the file.

``lines`` reads the file, ``login`` supplies the token, ``journal`` stores the progress, ``flight`` tracks the commands
under way and those lost, ``sending`` and ``answers`` talk to Kafka, ``run`` puts them together, ``report`` sums up the
outcome.
"""
