"""The figures: pure functions of the results database. ``catalogue`` lists them; same database, same bytes."""
