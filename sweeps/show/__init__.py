"""From the record to tables and mirrors."""
