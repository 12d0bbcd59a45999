"""The command line: the lab, what operators apply, what they watch, and the commands of development."""
