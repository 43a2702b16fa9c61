"""The commands, one file each: ``main(words)`` parses the words of a command and runs it."""
