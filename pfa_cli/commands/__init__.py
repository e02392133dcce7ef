"""The commands of `pfa`: one thin function each. What a command needs is imported when it runs, so that help is quick."""
