"""A method IN a model: build, attach, merge, take out, save and load."""
