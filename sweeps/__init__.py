"""The sweep: search -> choose -> show."""
